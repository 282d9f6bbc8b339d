//! Random specs and events: the records of kaspr-exec beside the plainest meaning of the spec, which
//! `tests/oracle/oracle.py` computes.

use kaspr_tests::program::program;
use kaspr_tests::root;

#[test]
fn specs_mean_what_the_oracle_says() {
    let seeds = std::env::var("TEST_SEEDS").unwrap_or_else(|_| "0:400".to_owned());
    let output = std::process::Command::new("python3")
        .current_dir(root())
        .arg("tests/oracle/oracle.py")
        .arg("--exec")
        .arg(program("kaspr-exec"))
        .args(["--seeds", &seeds])
        .output()
        .expect("python3 is on the PATH");
    let (said, problem) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{problem}");
}
