//! Against CPython's own `json`: same bytes, same objects, same refusals.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};

use kaspr_ir::plan::Part;

use super::{Decoder, Pick, Rest, encode, encode_part};

/// A small seeded generator: a failing case prints its seed.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 20] = [
            "a",
            "key",
            " ",
            "\\n",
            "\\u00e9",
            "é",
            "ß",
            "漢",
            "😀",
            "\\ud83d\\ude00",
            "\\ud800",
            "\\\"",
            "\\\\",
            "/",
            "\\/",
            "0",
            "x\u{7f}",
            "longer text that fills words",
            "\\b\\f",
            "€",
        ];
        (0..self.below(6)).map(|_| PIECES[self.below(20) as usize]).collect()
    }

    fn json(&mut self, depth: u64) -> String {
        let space = ["", " ", "\n\t"][self.below(3) as usize];
        match self.below(if depth > 4 { 8 } else { 11 }) {
            0 => format!("\"{}\"", self.text()),
            1 => format!("{space}{}", self.next() as i64),
            2 => format!("{}", self.below(1000)),
            3 => format!("{:?}{space}", f64::from_bits(self.next())).replace("inf", "Infinity"),
            4 => ["true", "false", "null", "NaN", "-0", "-0.0", "1e5", "1E-7"][self.below(8) as usize].to_owned(),
            5 => format!("{}{}", self.next(), self.next()),
            6 => format!("{}.{}", self.below(10_000), self.below(1000)),
            7 => format!("{}e{}", self.below(100), self.below(40) as i64 - 20),
            8 => {
                let values: Vec<_> = (0..self.below(5)).map(|_| self.json(depth + 1)).collect();
                format!("[{space}{}]", values.join(&format!("{space},")))
            }
            _ => {
                let pairs: Vec<_> = (0..self.below(6))
                    .map(|_| format!("\"{}\"{space}:{}", self.text(), self.json(depth + 1)))
                    .collect();
                format!("{{{}{space}}}", pairs.join(","))
            }
        }
    }
}

fn with_python(test: impl FnOnce(Python<'_>)) {
    Python::initialize();
    Python::attach(test);
}

fn python(py: Python<'_>) -> Bound<'_, PyModule> {
    let source = c"
import json
def loads(data):
    try:
        return repr(json.loads(data.decode('utf-8')))
    except (ValueError, RecursionError) as error:
        return type(error).__name__

def dumps(value):
    try:
        return json.dumps(value).encode()
    except Exception as error:
        return (type(error).__name__ + ': ' + str(error)).encode()
";
    PyModule::from_code(py, source, c"reference.py", c"reference").expect("the reference compiles")
}

fn decoded(py: Python<'_>, decoder: &mut Decoder, bytes: &[u8]) -> String {
    match decoder.decode(py, bytes) {
        Ok(value) => value.repr().expect("it prints").to_string(),
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyRecursionError>(py) => "RecursionError".to_owned(),
        Err(error) => {
            assert!(error.is_instance_of::<pyo3::exceptions::PyValueError>(py), "{error}");
            "refused".to_owned()
        }
    }
}

fn same_decoding(py: Python<'_>, decoder: &mut Decoder, reference: &Bound<'_, PyModule>, bytes: &[u8], what: &str) {
    let expected: String = reference.getattr("loads").and_then(|f| f.call1((bytes,))).unwrap().extract().unwrap();
    let expected = if expected.ends_with("DecodeError") { "refused".to_owned() } else { expected };
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(decoded(py, decoder, bytes), expected, "{what}: {text}");
    let refused = matches!(expected.as_str(), "refused" | "RecursionError");
    assert_eq!(decoder.validate(py, bytes).is_err(), refused, "{what}: {text}");
}

#[test]
fn decodes_as_cpython_does() {
    with_python(|py| {
        let (mut decoder, reference) = (Decoder::new(py).unwrap(), python(py));
        let deep = "[".repeat(500) + &"]".repeat(500);
        let handmade: Vec<&[u8]> = vec![
            b"",
            b" ",
            b"{}",
            b"[]",
            b"[1,]",
            b"{\"a\":1,}",
            b"{\"a\" 1}",
            b"01",
            b"-",
            b"-01",
            b"1.",
            b".5",
            b"1.e3",
            b"1e",
            b"+1",
            b"NaN",
            b"[NaN, Infinity, -Infinity]",
            b"nul",
            b"truee",
            b"\"\\x\"",
            b"\"\\u12\"",
            b"\"\\ud800\"",
            b"\"\\udc00\\ud800\"",
            b"\"a\nb\"",
            b"\"\t\"",
            b"\"unterminated",
            b"{\"a\":1,\"a\":2}",
            b"{1:2}",
            b"1 2",
            b"\xff",
            b"\"\xff\"",
            b"\xef\xbb\xbf1",
            b"123456789012345678901234567890",
            b"-0",
            b"-0.0",
            b"1e400",
            b"9223372036854775807",
            b"9223372036854775808",
            b"-9223372036854775808",
            b"\"\\u0000\"",
            b"\"\x7f\"",
            b"{\"\":\"\"}",
            b"\"\xc3\xa9\"",
            b"[[[[]]]]",
            deep.as_bytes(),
            b"\"\\/\"",
            b"\x0c1",
            b"{\"a\":[1,{\"b\":null}]}",
        ];
        for bytes in handmade {
            same_decoding(py, &mut decoder, &reference, bytes, "handmade");
        }
    });
}

#[test]
fn decodes_random_text_as_cpython_does() {
    with_python(|py| {
        let (mut decoder, reference) = (Decoder::new(py).unwrap(), python(py));
        for seed in 1..4000 {
            let mut seeded = Seeded(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed));
            let mut bytes = seeded.json(0).into_bytes();
            same_decoding(py, &mut decoder, &reference, &bytes, &format!("seed {seed}"));
            if !bytes.is_empty() {
                let at = seeded.below(bytes.len() as u64) as usize;
                bytes[at] = b" ,]}\"x1\\\xff"[seeded.below(9) as usize];
                same_decoding(py, &mut decoder, &reference, &bytes, &format!("seed {seed}, mutated"));
                bytes.truncate(at);
                same_decoding(py, &mut decoder, &reference, &bytes, &format!("seed {seed}, cut"));
            }
        }
    });
}

fn same_encoding(py: Python<'_>, reference: &Bound<'_, PyModule>, value: &Bound<'_, PyAny>, what: &str) {
    let expected: Vec<u8> = reference.getattr("dumps").and_then(|f| f.call1((value,))).unwrap().extract().unwrap();
    let mut bytes = b"before".to_vec();
    match encode(value, &mut bytes) {
        Ok(()) => assert_eq!(String::from_utf8_lossy(&bytes[6..]), String::from_utf8_lossy(&expected), "{what}"),
        Err(error) => {
            let class = error.get_type(py).name().unwrap().to_string();
            assert_eq!(format!("{class}: {}", error.value(py)), String::from_utf8_lossy(&expected), "{what}");
            assert_eq!(bytes, b"before", "nothing is left behind");
        }
    }
}

#[test]
fn encodes_as_cpython_does() {
    with_python(|py| {
        let reference = python(py);
        let source = c"
import enum, collections
class Colour(enum.IntEnum):
    RED = 1
class Name(str): pass
class Real(float):
    def __repr__(self): return 'no'
class Pairs(dict):
    def items(self): return [('own', 1)]
class Big(int):
    def __repr__(self): return 'no'
circle = []; circle.append(circle)
deep = []
for _ in range(200): deep = [deep]
values = [
    None, True, False, 0, -1, 10**40, -(2**63), 2**63, 1.0, -0.0, 0.1, 1e16, 1e15, 123456789012345680.0, 1e-4, 1e-5,
    5e-324, 1.7976931348623157e308, 1e22, 1e21, 100000.0, float('nan'), float('inf'), -float('inf'), 1.5e300,
    '', 'a', 'é', '漢字', '😀', 'a\\ud800b', '\\x7f', '\\x00\\x1f', 'q\"\\\\/', '\\n\\r\\t\\b\\f', 'x' * 100,
    [], [1, [2, []]], (), (1, 'a'), {}, {'a': 1, 'b': [1, {'c': None}]}, {1: 2, 1.5: 3, True: 4, None: 5, 2.0: 1},
    Colour.RED, {Colour.RED: 1}, Name('n'), {Name('k'): 1}, Real(1.5), Pairs(a=1), Big(5), Big(10**30), circle, deep,
    collections.OrderedDict(b=1, a=2), collections.defaultdict(list, x=[1]),
    {(1, 2): 3}, [1, {b'k': 2}],
]
";
        let module = PyModule::from_code(py, source, c"values.py", c"values").unwrap();
        for value in module.getattr("values").unwrap().try_iter().unwrap() {
            let value = value.unwrap();
            same_encoding(py, &reference, &value, "handmade");
        }
    });
}

#[test]
fn encodes_random_values_as_cpython_does() {
    with_python(|py| {
        let (mut decoder, reference) = (Decoder::new(py).unwrap(), python(py));
        for seed in 1..4000 {
            let text = Seeded(0xD134_2543_DE82_EF95u64.wrapping_mul(seed)).json(0);
            if let Ok(value) = decoder.decode(py, text.as_bytes()) {
                same_encoding(py, &reference, &value, &format!("seed {seed}"));
            }
        }
    });
}

#[test]
fn floats_are_written_as_cpython_writes_them() {
    with_python(|py| {
        let reference = python(py);
        let mut seeded = Seeded(7);
        for number in 0..20_000 {
            let float = match number % 3 {
                0 => f64::from_bits(seeded.next()),
                1 => seeded.below(1_000_000_000) as f64 / 1000.0,
                _ => (seeded.next() as f64) * 10f64.powi(seeded.below(60) as i32 - 40),
            };
            let value = pyo3::types::PyFloat::new(py, float).into_any();
            same_encoding(py, &reference, &value, &format!("{float:e}"));
        }
    });
}

#[test]
fn extensions_are_encoded() {
    with_python(|py| {
        let source = c"
import datetime, decimal, uuid, enum, collections
class Shade(enum.Enum):
    DARK = {'k': 1}
class Own:
    def __json__(self): return {'own': [1]}
class Loop:
    def __json__(self): return self
cases = [
    (datetime.datetime(2026, 1, 2, 3, 4, 5, 678), '\"2026-01-02T03:04:05.000678\"'),
    (datetime.date(2026, 1, 2), '\"2026-01-02\"'),
    (datetime.time(3, 4), '\"03:04:00\"'),
    (decimal.Decimal('1.50'), '\"1.50\"'),
    (uuid.UUID(int=1), '\"00000000-0000-0000-0000-000000000001\"'),
    (Shade.DARK, '{\"k\": 1}'), ({1}, '[1]'), (frozenset(), '[]'), (collections.deque([1, 2]), '[1, 2]'),
    (Own(), '{\"own\": [1]}'), ([Own()], '[{\"own\": [1]}]'),
]
refused = [b'x', [b'x'], object(), Loop()]
";
        let module = PyModule::from_code(py, source, c"cases.py", c"cases").unwrap();
        for case in module.getattr("cases").unwrap().try_iter().unwrap() {
            let (value, expected): (Bound<'_, PyAny>, String) = case.unwrap().extract().unwrap();
            let mut bytes = Vec::new();
            encode(&value, &mut bytes).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
        for value in module.getattr("refused").unwrap().try_iter().unwrap() {
            assert!(encode(&value.unwrap(), &mut Vec::new()).is_err());
        }
    });
}

const FIELDS: [&str; 4] = ["a", "b", "key", "longer text that fills words"];

impl Seeded {
    /// Keys of an object, some of them those of `FIELDS`, seldom one twice.
    fn keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for _ in 0..self.below(7) {
            let key = match self.below(8) {
                0 => self.text(),
                1..3 => ["x", "y"][self.below(2) as usize].to_owned(),
                _ => FIELDS[self.below(4) as usize].to_owned(),
            };
            if !keys.contains(&key) || self.below(4) == 0 {
                keys.push(key);
            }
        }
        keys
    }

    /// An object with these keys, written in one way or another.
    fn object(&mut self, keys: &[String]) -> String {
        const VALUES: [&str; 12] = [
            "1.50",
            "0.00001",
            "-0",
            "1.0",
            "0.5",
            "{}",
            "[1, 2]",
            "{\"a\": [true]}",
            "{\"a\":1}",
            "[ ]",
            "\"t\"",
            "[1,2]",
        ];
        let (comma, colon) = [(", ", ": "), (", ", ": "), (",", ":"), (" ,\n", " :")][self.below(4) as usize];
        let pairs: Vec<_> = keys
            .iter()
            .map(|key| {
                let value = match self.below(5) {
                    0 => self.json(3),
                    // An object whose keys are the same each time, for the most part.
                    4 => {
                        let (floor, site) = (self.below(30), self.json(4));
                        match self.below(6) {
                            0 => format!("{{\"site\": {site}, \"floor\":  {floor}}}"),
                            1 => format!("{{\"site\": {site}, \"floor\": {floor}, \"site\": {{}}}}"),
                            _ => format!("{{\"site\": {site}, \"at\": {{\"floor\": {floor}}}, \"of\": []}}"),
                        }
                    }
                    1 => VALUES[self.below(12) as usize].to_owned(),
                    _ => format!("{}", self.below(100)),
                };
                format!("\"{key}\"{colon}{value}")
            })
            .collect();
        format!("{{{}}}", pairs.join(comma))
    }
}

/// A part of an object holds the fields that were asked for, and it encodes as the whole does, also
/// when fields have been set; whether objects come as those before them or not.
#[test]
fn a_part_stands_for_its_object() {
    with_python(|py| {
        let (mut decoder, reference) = (Decoder::new(py).unwrap(), python(py));
        let (mut parts, mut rest) = (0, Rest::default());
        for seed in 1..3000u64 {
            let mut seeded = Seeded(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed));
            let fields = FIELDS.iter().filter(|_| seeded.below(2) == 0).map(ToString::to_string).collect();
            let mut pick = Pick::new(py, &Part { fields, keeps_text: seeded.below(4) > 0 }).unwrap();
            let mut keys = seeded.keys();
            for _ in 0..12 {
                match seeded.below(8) {
                    0 => keys = seeded.keys(),
                    1 => keys.extend(seeded.keys()),
                    2 => keys.truncate(seeded.below(7) as usize),
                    _ => {}
                }
                let text = if seeded.below(12) == 0 { seeded.json(0) } else { seeded.object(&keys) };
                let what = format!("seed {seed}: {text}");
                parts += usize::from(same_part(
                    py,
                    &mut decoder,
                    &reference,
                    (&mut pick, &mut rest),
                    &mut seeded,
                    &text,
                    &what,
                ));
            }
        }
        assert!(parts > 10_000, "only {parts} were decoded in part");
    });
}

/// False: the value is whole, and is that.
fn same_part(
    py: Python<'_>,
    decoder: &mut Decoder,
    reference: &Bound<'_, PyModule>,
    (pick, rest): (&mut Pick, &mut Rest),
    seeded: &mut Seeded,
    text: &str,
    what: &str,
) -> bool {
    let asked = if pick.keeps_text { Some(&mut *rest) } else { None };
    let (part, is_part) =
        match (decoder.decode_part(py, text.as_bytes(), pick, asked), decoder.decode(py, text.as_bytes())) {
            (Ok(part), Ok(_)) => part,
            (Err(_), Err(_)) => return false,
            (part, whole) => panic!("{what}: {part:?} {whole:?}"),
        };
    let whole = decoder.decode(py, text.as_bytes()).unwrap();
    if !is_part {
        assert_eq!(part.repr().unwrap().to_string(), whole.repr().unwrap().to_string(), "{what}");
        return false;
    }
    let (part, whole) = (part.cast::<PyDict>().unwrap(), whole.cast::<PyDict>().unwrap());
    for field in &pick.names() {
        let of =
            |dict: &Bound<'_, PyDict>| dict.get_item(field).unwrap().map(|value| value.repr().unwrap().to_string());
        assert_eq!(of(part), of(whole), "{what}");
    }
    if pick.keeps_text {
        for (number, field) in pick.names().into_iter().chain(["new".to_owned()]).enumerate() {
            if seeded.below(2) == 0 {
                part.set_item(&field, number).unwrap();
                whole.set_item(&field, number).unwrap();
            }
        }
        let mut bytes = Vec::new();
        encode_part(part, rest, &mut bytes).unwrap();
        let expected: Vec<u8> = reference.getattr("dumps").unwrap().call1((whole,)).unwrap().extract().unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), String::from_utf8(expected).unwrap(), "{what}");
    }
    true
}
