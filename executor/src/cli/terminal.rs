//! The terminal: the log, and a bar where a run takes its time.
//!
//! Both write to standard error: records have standard output for themselves. The bar is taken away while a
//! line is written and drawn again below it.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::app_flags::LogFormat;
use super::colour;
use super::lines::{JsonLines, TextFields};
use super::voice::{Voice, voice};
use crate::run::local::feed::Progress;
use crate::run::local::thousands;

/// A run that takes longer shows a bar.
const BAR_AFTER: Duration = Duration::from_secs(1);
/// The bar moves at most so often.
const BAR_EVERY: Duration = Duration::from_millis(100);

/// The bar of a run, on a terminal. One per local run.
pub struct Terminal {
    bar: ProgressBar,
    total_bytes: Option<u64>,
    /// The time of the last drawing, counted from the beginning of the run.
    shown: Option<Duration>,
    /// True on a terminal, unless `--quiet`.
    enabled: bool,
}

impl Terminal {
    /// No bar yet. `total_bytes` is known where all inputs are files.
    pub fn new(bar: ProgressBar, total_bytes: Option<u64>, quiet: bool) -> Terminal {
        Terminal { bar, total_bytes, shown: None, enabled: !quiet && std::io::stderr().is_terminal() }
    }

    /// Moves the bar.
    ///
    /// `now` counts from the beginning of the run, `events` are complete. Costs nothing while it is too early
    /// to draw.
    pub fn update(&mut self, now: Duration, progress: &Progress, events: u64) {
        if !self.enabled || now < BAR_AFTER || self.shown.is_some_and(|shown| now < shown + BAR_EVERY) {
            return;
        }
        if self.shown.is_none() {
            // Hidden until now, so that a short run leaves no trace on the terminal.
            self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            if let Some(total) = self.total_bytes {
                self.bar.set_length(total);
                self.bar.set_style(style("{bar:30} {percent:>3}%  {msg}"));
            } else {
                self.bar.set_style(style("{spinner} {msg}"));
            }
        }
        self.shown = Some(now);
        let rate = (events as f64 / now.as_secs_f64()) as u64;
        self.bar.set_position(progress.bytes.load(Ordering::Relaxed));
        let (events, rate) = (thousands(events), thousands(rate));
        self.bar.set_message(format!("{events} events, {rate} events/s"));
        self.bar.tick();
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The templates are texts of this file.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well-formed")
}

/// Writes log lines above the bar.
#[derive(Clone)]
struct AboveBar(ProgressBar);

impl Write for AboveBar {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for AboveBar {
    type Writer = AboveBar;
    fn make_writer(&'a self) -> AboveBar {
        self.clone()
    }
}

/// Sends the log to standard error from here on; gives the bar that it is written above. The first call in a process
/// counts. The form is that of [`super::voice::speak`].
pub fn start_log(level: Level) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, indicatif::ProgressDrawTarget::hidden());
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(AboveBar(bar.clone()))
        .with_ansi(colour::in_stream(&std::io::stderr()))
        .with_target(false);
    let Voice { format, worker } = voice();
    // A process that has waited for its definitions has a log already.
    let _ = match format {
        LogFormat::Text => log.fmt_fields(TextFields { worker }).compact().try_init(),
        LogFormat::Json => log.event_format(JsonLines { worker }).try_init(),
    };
    bar
}
