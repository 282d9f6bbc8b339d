//! Measures how long `kasprc compile` takes, whole processes, from 10 agents to 10,000: one file an agent,
//! two code blocks each, every agent reading what the one before it writes.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use kaspr_benches::median;

const SIZES: [usize; 4] = [10, 100, 1000, 10_000];
const ROUNDS: usize = 5;

fn agent(number: usize) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata:
  name: agent-{number}
spec:
  input:
    topic:
      name: events-{number}
  output:
    topics:
      - name: events-{next}
  processors:
    pipeline:
      - is-active
      - enrich
    operations:
      - name: is-active
        filter:
          python: |
            LEVELS = (\"low\", \"high\")

            def is_active(value):
                if value.get(\"level\") in LEVELS:
                    return value.get(\"active\", False)
                return False
      - name: enrich
        map:
          python: |
            import math

            def enrich(value):
                readings = [reading for reading in value[\"readings\"] if not math.isnan(reading)]
                value[\"mean\"] = sum(readings) / max(len(readings), 1)
                value[\"name\"] = f\"{{value['sensor']}}-{number}\"
                return value
",
        next = number + 1
    )
}

fn write(folder: &Path, count: usize) {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    for number in 0..count {
        std::fs::write(folder.join(format!("agent-{number}.yaml")), agent(number)).expect("a spec can be written");
    }
}

#[allow(clippy::disallowed_methods, reason = "a bench asks the time")]
/// Seconds on the wall from the start of the process to its end.
fn compile(program: &Path, folder: &Path, plan: &Path) -> f64 {
    let start = Instant::now();
    let status = Command::new(program).arg("compile").arg(folder).arg("-o").arg(plan).status().expect("kasprc starts");
    assert!(status.success(), "the specs compile");
    start.elapsed().as_secs_f64()
}

#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
fn main() {
    let program = std::env::current_exe().expect("a program knows its file").with_file_name("kasprc");
    let work = std::env::temp_dir().join(format!("kaspr-bench-compile-{}", std::process::id()));
    println!("agents  blocks       ms  µs/agent  against {} agents", SIZES[1]);
    let mut base = None;
    for count in SIZES {
        let folder = work.join(count.to_string());
        write(&folder, count);
        let plan = work.join("plan.json");
        let seconds: Vec<f64> = (0..ROUNDS).map(|_| compile(&program, &folder, &plan)).collect();
        let each = median(&seconds) * 1e6 / count as f64;
        if count == SIZES[1] {
            base = Some(each);
        }
        let ratio = base.map(|base| format!("{:.2}x", each / base)).unwrap_or_default();
        println!("{count:>6}  {:>6}  {:>7.1}  {each:>8.1}  {ratio}", 2 * count, median(&seconds) * 1e3);
    }
    std::fs::remove_dir_all(&work).expect("the folder can be removed");
}
