//! Floats as CPython's `float.__repr__` writes them.

/// Appends a float: the shortest digits that read back as the same number.
pub fn write(float: f64, out: &mut Vec<u8>) {
    if float.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if float.is_infinite() {
        return out.extend_from_slice(if float > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(float);
    let size = float.abs();
    if (1e-4..1e16).contains(&size) && !text.contains('e') || size == 0.0 {
        out.extend_from_slice(text.as_bytes());
        if !text.contains('.') {
            out.extend_from_slice(b".0");
        }
        return;
    }
    write_digits(text, out);
}

/// Arranges the digits as CPython does: an exponent below -4 and from 16 on.
fn write_digits(text: &str, out: &mut Vec<u8>) {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    // The value is 0.d1d2d3… × 10^point.
    let point = i32::try_from(whole.len()).expect("few digits") + exponent - i32::try_from(zeros).expect("few digits");
    out.extend_from_slice(sign.as_bytes());
    if point > -4 && point <= 16 {
        return write_positional(digits, point, out);
    }
    out.extend_from_slice(&digits.as_bytes()[..1]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits.as_bytes()[1..]);
    }
    let exponent = point - 1;
    out.extend_from_slice(format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()).as_bytes());
}

fn write_positional(digits: &str, point: i32, out: &mut Vec<u8>) {
    let Ok(point) = usize::try_from(point) else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        return out.extend_from_slice(digits.as_bytes());
    };
    if point == 0 {
        out.extend_from_slice(b"0.");
        return out.extend_from_slice(digits.as_bytes());
    }
    if digits.len() <= point {
        out.extend_from_slice(digits.as_bytes());
        out.resize(out.len() + point - digits.len(), b'0');
        return out.extend_from_slice(b".0");
    }
    out.extend_from_slice(&digits.as_bytes()[..point]);
    out.push(b'.');
    out.extend_from_slice(&digits.as_bytes()[point..]);
}
