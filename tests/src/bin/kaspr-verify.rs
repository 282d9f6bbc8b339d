//! `kaspr-verify`: judges the topics of a run, see `kaspr_tests::verify`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use kaspr_tests::verify::read::{Topics, left};
use kaspr_tests::verify::{Verdict, judge};

/// Judges what a run of an agent left on Kafka: duplicates, lost, reordered, torn, table mismatches.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Input events are {\"id\": 7, \"key\": \"k\", \"sequence\": 2, …}; records of outputs carry the same and the
input's \"partition\" and \"offset\"; the table counts the events of each key.

Exit status: 0 all zero, 1 something is wrong, 2 it could not be read."
)]
struct Arguments {
    /// The brokers.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    bootstrap_servers: String,
    /// The topic that the agent reads.
    #[arg(long, value_name = "TOPIC")]
    input: String,
    /// A topic that it writes for every event. May be given more than once.
    #[arg(long, value_name = "TOPIC", required = true)]
    output: Vec<String>,
    /// The topic of events that fail.
    #[arg(long, value_name = "TOPIC")]
    dead_letters: Option<String>,
    /// The changelog of its table.
    #[arg(long, value_name = "TOPIC")]
    changelog: Option<String>,
    /// The format of the verdict.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> ExitCode {
    let Arguments { bootstrap_servers, input, output, dead_letters, changelog, format } = Arguments::parse();
    let topics = Topics { input, outputs: output, dead_letters, changelog };
    match left(&bootstrap_servers, &topics) {
        Ok(left) => tell(&judge(&left), format),
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "error: {why}");
            ExitCode::from(2)
        }
    }
}

fn tell(verdict: &Verdict, format: Format) -> ExitCode {
    let text = match format {
        Format::Text => verdict.to_string(),
        Format::Json => verdict.to_json().to_string(),
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(u8::from(!verdict.is_clean()))
}
