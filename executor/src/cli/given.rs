//! Reads what the program was given from outside: arguments, and the variables that set its Kafka clients.
//! Secrets among them are taken out of everything that user code and other processes can read.
//!
//! | source of a Kafka setting, the weaker first | seen by others until it is hidden |
//! |---|---|
//! | `K_KAFKA_SASL_PASSWORD`, `KASPR_KAFKA_SASL_PASSWORD` | in `/proc/PID/environ`, until the program starts |
//! | `KASPR_KAFKA_SASL_PASSWORD_FILE=PATH` | never: only the path is |
//! | `--kafka sasl.password=…` | in `/proc/PID/cmdline`, until the program starts |
//!
//! A supervisor hands flags and variables to its workers through a socket, since a worker's command line and
//! variables would show them again. Files are read by each worker itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use tracing::warn;

use super::app_flags::{KafkaFlag, level};
use super::scrub::{Shown, scrub};
use super::stop::Stop;
use super::variables::Strangers;
use super::voice::say_warning;
use crate::broker::kafka::config::is_known;
use crate::broker::kafka::names::{NamedBy, is_exact, setting_of};
use crate::broker::kafka::tokens::msk::{self, setting};
use crate::broker::kafka::tokens::{METHOD, MSK};
use crate::config::secret::{Secret, is_secret};
use crate::config::variables::{
    PREFIXES, Variables, behind_prefix, is_meant, is_of_a_service, is_same, is_setting, is_without_effect,
};

/// The flag that sets Kafka clients.
const FLAG: &str = "--kafka";
/// Settings that name a file for librdkafka. They are made absolute, because user code may change the folder
/// before a client is made anew.
const PATHS: [&str; 6] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.crl.location",
    "ssl.keystore.location",
    "sasl.kerberos.keytab",
];
/// Bytes of such a file: a certificate chain is smaller.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Bytes of settings that a worker is handed: a socket holds them before the worker reads. One on Linux
/// holds 64 KiB at least; a larger text would make the supervisor wait for a worker that may never read.
const HANDED_BYTES_MAX: usize = 60 << 10;

/// Arguments and variables of the program. Taken once, by `main`, before any other thread runs.
pub struct Given {
    /// The command line, the program's own name first. As they were typed, secrets included: they stay in
    /// this process.
    pub arguments: Vec<OsString>,
    /// Variables that set settings of the program.
    pub variables: Variables,
    /// Variables that set Kafka clients.
    clients: Vec<(String, Secret)>,
    /// Variables of AWS. They stay where they are: user code may need them, too.
    credentials: Vec<(String, Secret)>,
    /// Names of secrets that stood on the command line.
    exposed: Vec<String>,
    /// The reason for which secrets can still be seen.
    unhidden: Option<String>,
    /// Variables that look like settings, and are none.
    strangers: Strangers,
}

/// Settings of Kafka clients.
#[derive(Debug, Default)]
pub struct KafkaSettings {
    /// All of them, by librdkafka's names.
    pub all: BTreeMap<String, Secret>,
    /// Settings that a worker cannot find by itself, as JSON. Without those that stand in files.
    handed: BTreeMap<String, Secret>,
    /// The way to the supervisor, in a worker of one.
    pub line: Option<UnixStream>,
}

/// Takes standard output for the program alone: what user code, libraries and the programs that they start
/// write there goes to standard error, so that nothing stands between records. Call it before user code is
/// loaded. The file that it returns is the old standard output.
///
/// # Errors
///
/// Standard output is closed, or the process has no descriptors left.
pub fn take_stdout() -> std::io::Result<File> {
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: both descriptors are open for the whole life of the process.
    match unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(File::from(output)),
    }
}

impl Given {
    /// Takes arguments and variables, and hides the secrets among them: from `os.environ`, from programs that
    /// are started, and from what `/proc` shows of this process.
    ///
    /// # Safety
    /// No other thread runs: one that reads a variable meanwhile reads memory that may be gone.
    pub unsafe fn take() -> Given {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let all: Vec<(String, String)> =
            all.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect();
        let credentials = all.iter().filter(|(name, _)| msk::VARIABLES.contains(&name.as_str()));
        let credentials: Vec<(String, Secret)> =
            credentials.map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect();
        let own = all.iter().filter(|(name, _)| PREFIXES.iter().any(|own| name.starts_with(own)));
        let (mut clients, mut hidden, mut strangers) = (Vec::new(), Vec::new(), Strangers::default());
        for (name, value) in own {
            strangers.judge(name, value);
            if is_hidden(name, value) {
                hidden.push(name.clone());
            }
            // One that is set to nothing counts as not set.
            if is_meant(value) && !is_of_a_service(name, value) {
                clients.push((name.clone(), Secret::new(value.as_str())));
            }
        }
        let mut variables = Variables::new(all.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        // Bare it is everyone's: what is no level is not meant.
        let bare = all.iter().find(|(name, value)| name == "LOG_LEVEL" && level(value).is_some());
        bare.iter().for_each(|(name, value)| variables.add_weakest(name, value));
        // `remove_var` below only unlinks a variable: the bytes that `/proc` shows stay, so they are
        // overwritten.
        let scrubbed = scrub_variables(&hidden).and_then(|()| scrub_arguments());
        for name in hidden {
            // SAFETY: the caller's promise.
            unsafe { std::env::remove_var(name) };
        }
        // Not an error: the run may go on, and the log warns of it once there is a log.
        let unhidden = scrubbed.err().map(|error| error.to_string());
        let exposed: Vec<String> =
            flags(&arguments).filter_map(|(_, flag)| KafkaFlag::read(&flag).secret_name()).collect();
        let has_secrets = clients.iter().any(|(name, _)| behind_prefix(name).is_some_and(names_a_secret));
        let has_credentials = credentials.iter().any(|(name, _)| is_secret(&setting(name)));
        if has_secrets || has_credentials || !exposed.is_empty() {
            keep_memory_out_of_cores();
        }
        // SAFETY: as above.
        unsafe { keep_whole_python_path() };
        Given { arguments, variables, clients, credentials, exposed, unhidden, strangers }
    }

    /// Judges variables that look like settings, and are none: those without effect are named in one line.
    ///
    /// # Errors
    ///
    /// Some are misspelt, or ask for what there is not.
    pub fn judge_variables(&self, nearest: &dyn Fn(&str, &[String]) -> Option<String>) -> Result<(), Stop> {
        self.strangers.refuse(nearest)?;
        self.strangers.without_effect().iter().for_each(|said| say_warning(said));
        Ok(())
    }

    /// Settings of Kafka clients: flags before `KASPR_KAFKA_*` before `K_KAFKA_*`. In a worker of a supervisor
    /// they come from there.
    ///
    /// # Errors
    ///
    /// A flag without a name, a file that cannot be read, two variables for one setting, or a supervisor that
    /// handed nothing over. Names of settings are judged later, by the client.
    pub fn kafka(&self, flags: &[KafkaFlag], is_worker: bool) -> Result<KafkaSettings, Stop> {
        let mut settings = KafkaSettings::default();
        // The weaker first, so that the stronger overwrites it.
        for prefix in PREFIXES.iter().rev() {
            self.add_variables(prefix, &mut settings)?;
        }
        for flag in flags {
            let (name, value) = flag.pair().map_err(Stop::refused)?;
            settings.all.insert(name.to_owned(), value.clone());
            settings.handed.insert(name.to_owned(), value.clone());
        }
        // Last, so that they win: a worker does not inherit the variables that its supervisor has hidden.
        if is_worker {
            let (handed, line) = taken_over()?;
            settings.all.extend(handed);
            settings.line = Some(line);
        }
        self.add_credentials(&mut settings);
        for (_, path) in settings.all.iter_mut().filter(|(name, _)| PATHS.contains(&name.as_str())) {
            // A new client reads it again, wherever user code has moved the process's folder by then.
            if Path::new(path.expose()).exists()
                && let Ok(whole) = std::path::absolute(path.expose())
            {
                *path = Secret::new(whole.to_string_lossy());
            }
        }
        Ok(settings)
    }

    /// Adds what AWS's own variables say where tokens are made of it. The weakest: settings of these names win.
    fn add_credentials(&self, settings: &mut KafkaSettings) {
        if settings.all.get(METHOD).is_none_or(|method| method.expose() != MSK) {
            return;
        }
        for (variable, value) in &self.credentials {
            settings.all.entry(setting(variable)).or_insert_with(|| value.clone());
        }
    }

    /// Adds the variables of one prefix to the settings, and overwrites those of a weaker one.
    fn add_variables(&self, prefix: &str, settings: &mut KafkaSettings) -> Result<(), Stop> {
        let mut named: BTreeMap<String, &str> = BTreeMap::new();
        for (variable, value) in &self.clients {
            let Some(rest) = variable.strip_prefix(prefix) else { continue };
            let Some((name, by)) = setting_of(rest) else { continue };
            // Of names that differ in underscores alone the exact one counts.
            let before = named.get(&name).filter(|other| is_same(other, variable));
            if before.is_some() && !is_exact(rest) {
                continue;
            }
            let is_alike = before.is_some();
            let value = match by {
                NamedBy::Value => value.clone(),
                NamedBy::File => read_file(variable, value.expose())?,
            };
            if let Some(other) = named.insert(name.clone(), variable).filter(|_| !is_alike) {
                return Err(Stop::refused(format!("{other} and {variable} set the same: remove one of them")));
            }
            // A worker reads files itself: they may have changed when it starts again.
            match by {
                NamedBy::File => settings.handed.remove(&name),
                NamedBy::Value => settings.handed.insert(name.clone(), value.clone()),
            };
            settings.all.insert(name, value);
        }
        Ok(())
    }

    /// Warns of secrets that could not be hidden, or only late. Call it when the log has started.
    pub fn warn(&self) {
        for name in &self.exposed {
            let variable = name.to_ascii_uppercase().replace('.', "_");
            warn!(
                "the Kafka setting \"{name}\" stood on the command line, where other processes could read it until now: name a file that holds it in KASPR_KAFKA_{variable}_FILE"
            );
        }
        if let Some(why) = &self.unhidden {
            warn!("secrets in arguments and variables cannot be hidden from other processes of this user: {why}");
        }
    }

    /// The command line of a worker, without the settings that it is handed. Both forms of a flag are
    /// dropped, `--kafka KEY=VALUE` and `--kafka=KEY=VALUE`.
    pub fn for_worker(&self) -> impl Iterator<Item = &OsString> {
        let dropped: Vec<usize> = flags(&self.arguments).flat_map(|(places, _)| places).collect();
        self.arguments.iter().enumerate().skip(1).filter(move |(at, _)| !dropped.contains(at)).map(|(_, given)| given)
    }
}

impl KafkaSettings {
    /// The text that a supervisor writes to the standard input of its workers.
    ///
    /// # Errors
    ///
    /// The text is larger than [`HANDED_BYTES_MAX`].
    pub fn handed(&self) -> Result<Secret, Stop> {
        let plain: BTreeMap<&str, &str> =
            self.handed.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let text = serde_json::to_string(&plain).map_err(Stop::fault)?;
        if text.len() > HANDED_BYTES_MAX {
            return Err(Stop::refused(format!(
                "the Kafka settings in flags and variables are larger than {HANDED_BYTES_MAX} bytes: put the large ones in files, KASPR_KAFKA_…_FILE"
            )));
        }
        Ok(Secret::new(text))
    }
}

/// Hands settings over to a worker, whose standard input is the other end of this socket: a length, and the text.
///
/// # Errors
///
/// The worker is gone.
pub(super) fn hand_over(line: &mut UnixStream, settings: &str) -> std::io::Result<()> {
    let length = u32::try_from(settings.len()).unwrap_or(u32::MAX);
    line.write_all(&[&length.to_be_bytes(), settings.as_bytes()].concat())
}

/// The settings that the supervisor of this worker has handed over, and the way to it. Standard input is empty from
/// here on: user code may read it.
fn taken_over() -> Result<(BTreeMap<String, Secret>, UnixStream), Stop> {
    let refused = |_| Stop::refused("--worker is for the supervisor's use, which hands settings over");
    let (text, line) = read_handed().map_err(refused)?;
    let plain: BTreeMap<String, String> = serde_json::from_slice(&text).map_err(|error| refused(error.into()))?;
    Ok((plain.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(), line))
}

fn read_handed() -> std::io::Result<(Vec<u8>, UnixStream)> {
    let mut line = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut length = [0; 4];
    line.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > HANDED_BYTES_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    line.read_exact(&mut text)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok((text, line))
}

/// Reads a value without the line end that editors put behind it.
///
/// # Errors
///
/// The file cannot be read, is empty, is not UTF-8, or is larger than [`FILE_BYTES_MAX`]. The text names
/// variable and path, and nothing of the content.
fn read_file(variable: &str, path: &str) -> Result<Secret, Stop> {
    let refused = |why: &dyn std::fmt::Display| Stop::refused(format!("{variable}: cannot read \"{path}\": {why}"));
    let file = std::fs::File::open(path).map_err(|error| refused(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| refused(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(&format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| refused(&"it is not UTF-8"))?;
    let value = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if value.is_empty() {
        return Err(refused(&"it is empty"));
    }
    Ok(Secret::new(value))
}

/// True if user code must not see this variable of the executor: it holds a secret, or something unknown.
/// Something unknown counts as a secret, since it may be a misspelt one.
fn is_hidden(variable: &str, value: &str) -> bool {
    // `KEY_SERIALIZER` has a word of secrets in its name, and is none.
    if is_setting(variable) || is_without_effect(variable) || is_of_a_service(variable, value) {
        return false;
    }
    let Some(own) = behind_prefix(variable) else { return false };
    match setting_of(own) {
        Some((name, NamedBy::Value)) => is_secret(&name) || !is_known(&name),
        Some((_, NamedBy::File)) => false,
        None => is_secret(&own.to_ascii_lowercase().replace('_', ".")),
    }
}

/// True if a variable, by its name behind the prefix, gives Kafka's clients a secret, or the file of one.
fn names_a_secret(name: &str) -> bool {
    setting_of(name).is_some_and(|(name, _)| is_secret(&name))
}

/// Keeps the memory of this process, and of those that it starts, out of core files: clients keep secrets there for as
/// long as they live. A core still says where each thread was.
fn keep_memory_out_of_cores() {
    // Where the system has no such file, or does not let it be written, cores are as they were.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// Takes entries of `PYTHONPATH` that some shell should have filled in, and none has, out of it: the operator's is
/// `/opt/kaspr/packages:${PYTHONPATH}`, word for word.
///
/// # Safety
/// No other thread runs.
unsafe fn keep_whole_python_path() {
    const PATH: &str = "PYTHONPATH";
    let Some(path) = std::env::var_os(PATH) else { return };
    let path = path.to_string_lossy();
    if !path.contains("${") {
        return;
    }
    let kept: Vec<&str> = path.split(':').filter(|entry| !entry.contains("${")).collect();
    // SAFETY: the caller's promise.
    unsafe {
        match kept.is_empty() {
            true => std::env::remove_var(PATH),
            false => std::env::set_var(PATH, kept.join(":")),
        }
    }
}

/// The settings on a command line: the places of their arguments, and the text.
///
/// ```text
/// run --kafka a=1 --kafka=b=2   →   ([1, 2], "a=1"), ([3], "b=2")
/// ```
fn flags(arguments: &[OsString]) -> impl Iterator<Item = (Vec<usize>, String)> {
    arguments.iter().enumerate().filter_map(|(at, argument)| {
        let text = argument.to_string_lossy();
        let rest = text.strip_prefix(FLAG)?;
        match rest.strip_prefix('=') {
            Some(pair) => Some((vec![at], pair.to_owned())),
            None if rest.is_empty() => {
                let next = arguments.get(at + 1)?.to_string_lossy().into_owned();
                Some((vec![at, at + 1], next))
            }
            None => None,
        }
    })
}

/// Hides the values of these variables; their names stay.
fn scrub_variables(hidden: &[String]) -> std::io::Result<()> {
    scrub(Shown::Variables, |entry| {
        let name = entry.split(|byte| *byte == b'=').next()?;
        hidden.iter().any(|hidden| hidden.as_bytes() == name).then_some(name.len() + 1..entry.len())
    })
}

/// Hides the values of secrets, and everything of a setting that has no name.
fn scrub_arguments() -> std::io::Result<()> {
    let mut is_flag = false;
    scrub(Shown::Arguments, |entry| {
        let text = std::ffi::OsStr::from_bytes(entry).to_string_lossy();
        // The text begins an argument of its own behind a bare flag, or behind the flag's `=`.
        let begins = match (std::mem::replace(&mut is_flag, text == FLAG), text.strip_prefix(FLAG)) {
            (true, _) => 0,
            (false, Some(rest)) if rest.starts_with('=') => FLAG.len() + 1,
            _ => return None,
        };
        let hidden = KafkaFlag::read(&text[begins..]).hidden_from()?;
        Some((begins + hidden).min(entry.len())..entry.len())
    })
}
