//! `kaspr-exec`: the executor's program, and the only part of it that knows the compiler.
//!
//! It compiles specs (or reads a plan), resolves the settings, and hands both to the library. Whatever needs
//! the compiler's knowledge below (the nearest name, a line of a file, a rewritten file) is passed on as a
//! function. So the library can be used, and tested, without the compiler.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kaspr_exec::check::unsupported::unsupported;
use kaspr_exec::cli::{
    AppArguments, Arguments, Command, FINE, Given, LogFormat, REFUSED, RunArguments, Signals, Stop, TESTS,
    TestArguments, Tested, Waited, check_on_kafka, choose_colours, completions, definitions_dir, has_colours,
    leave_last_words, log_level, man, open_last_words, run_locally, run_on_kafka, run_tests, say, say_faults, speak,
    speaks_json, start_log, tested_folders, wait_for_definitions,
};
use kaspr_exec::code::python;
use kaspr_exec::config::settings::Settings;
use kaspr_exec::run::testing::{Known, Put, Suite, SuiteFault, faults};
use kaspr_ir::plan::{App, Codec, Plan};

fn main() {
    // SAFETY: the program has just begun, and no other thread runs.
    let given = unsafe { Given::take() };
    open_last_words();
    let Arguments { color, command } = Arguments::read(&given.arguments);
    // Before anything else is printed: what is drawn below asks it.
    choose_colours(color);
    let ended = match command {
        // Only a supervisor needs to know whether the fault is the worker's own.
        Command::Run(arguments) if arguments.worker.is_some() => run(&arguments, &given),
        Command::Run(arguments) => run(&arguments, &given).map_err(Stop::for_others),
        Command::Check(arguments) => check(&arguments.app, &given).map_err(Stop::for_others),
        Command::Test(arguments) => test(&arguments, &given),
        Command::Completions { shell } => completions(shell),
        Command::Man { folder } => man(&folder),
    };
    let code = match ended {
        Ok(()) => FINE,
        Err(Stop(code, message)) => {
            say(&message);
            code
        }
    };
    python::exit(code)
}

/// `kaspr-exec run`: compiles, then runs on Kafka or locally.
fn run(arguments: &RunArguments, given: &Given) -> Result<(), Stop> {
    let known = known_settings(&arguments.app, given);
    speak(LogFormat::of(&known)?, arguments.post().map(|(number, _)| number));
    // Before compiling: a signal that comes meanwhile counts, too.
    let signals = Signals::listen();
    // The supervisor of a worker has the same variables, and has judged them.
    if arguments.worker.is_none() {
        given.judge_variables(&nearest)?;
    }
    if !arguments.local {
        signals.outlive();
    }
    let paths = paths(&arguments.app, &known)?;
    let mut idle = None;
    if arguments.app.paths.is_empty() && !arguments.local {
        start_log(log_level(&known)?);
        let folder = &paths[0];
        // A worker of several has no port of its own.
        let served = arguments.worker.is_none().then_some(&known);
        match wait_for_definitions(folder, (served, &signals), &|| kasprc::load::missing(folder))? {
            Waited::Found(served) => idle = served,
            Waited::Stopped => return Ok(()),
        }
    }
    let (plan, settings) = prepare(&arguments.app, &paths, given)?;
    if arguments.local {
        let config = settings.config(&plan, 0).map_err(Stop::refused)?;
        return run_locally(&plan, arguments, &settings, config, &signals, &nearest);
    }
    needs_servers(&settings, ", --local runs on the embedded in-memory log")?;
    run_on_kafka(&plan, (arguments, given), &settings, (&signals, idle))
}

/// The settings as flags and variables alone give them: an app may have more to say, once its specs are read.
fn known_settings(arguments: &AppArguments, given: &Given) -> Settings {
    Settings::resolve(&arguments.flags(), &given.variables, &App::default())
}

/// The paths of the specs: those that were typed, else the folder of definitions.
///
/// # Errors
///
/// There is neither.
fn paths(arguments: &AppArguments, settings: &Settings) -> Result<Vec<PathBuf>, Stop> {
    match arguments.paths.is_empty() {
        true => Ok(vec![definitions_dir(settings)?]),
        false => Ok(arguments.paths.clone()),
    }
}

/// `kaspr-exec check`: compiles, then looks whether a run could begin. The result goes to standard output.
#[allow(clippy::print_stdout, reason = "the result of a check is its output")]
fn check(arguments: &AppArguments, given: &Given) -> Result<(), Stop> {
    let known = known_settings(arguments, given);
    speak(LogFormat::of(&known)?, None);
    given.judge_variables(&nearest)?;
    let (plan, settings) = prepare(arguments, &paths(arguments, &known)?, given)?;
    needs_servers(&settings, "")?;
    let found = check_on_kafka(&plan, (arguments, given), &settings)?;
    print!("{found}");
    Ok(())
}

/// `kaspr-exec test`: compiles every folder and reads its tests before the first of them is played, so that a
/// mistake in the last file is reported at once.
fn test(arguments: &TestArguments, given: &Given) -> Result<(), Stop> {
    given.judge_variables(&nearest)?;
    let mut tested = Vec::new();
    for folder in tested_folders(&arguments.paths)? {
        // No flags: tests depend on their specs, and on variables as a run does.
        let of_variables = Settings::resolve(&BTreeMap::new(), &given.variables, &App::default());
        let plan = Rc::new(plan(std::slice::from_ref(&folder), &of_variables)?);
        let settings = Settings::resolve(&BTreeMap::new(), &given.variables, &plan.app);
        can_run(&plan, &settings)?;
        let suite = suite(&tests_of(&folder)?, &known(&plan, &settings)?, &folder)?;
        tested.push(Tested { folder, plan, settings, suite });
    }
    run_tests(&tested, arguments, &save, &line)
}

/// The file of a folder's tests.
fn tests_of(folder: &Path) -> Result<kasprc::SourceFile, Stop> {
    let path = folder.join(TESTS);
    let bytes =
        std::fs::read(&path).map_err(|error| Stop::refused(format!("cannot read \"{}\": {error}", path.display())))?;
    Ok(kasprc::SourceFile { name: path.display().to_string(), bytes })
}

/// The names that tests of the plan may use.
fn known(plan: &Plan, settings: &Settings) -> Result<Known, Stop> {
    let config = settings.config(plan, 0).map_err(Stop::refused)?;
    let version = options().python_version;
    Ok(Known::of(plan, &config.policies(plan), &|block| kasprc::names_of_block(&block.code, version)))
}

/// The tests of a file that has no fault.
///
/// # Errors
///
/// The file's faults, drawn with their lines.
fn suite(file: &kasprc::SourceFile, known: &Known, folder: &Path) -> Result<Suite, Stop> {
    let json = kasprc::data::to_json(file).map_err(|faults| Stop(REFUSED, faults))?;
    let found = faults(&json, known, folder, &nearest).into_iter().map(finding).collect::<Vec<_>>();
    if !found.is_empty() {
        let drawn = kasprc::places::draw(file, &found, has_colours(&std::io::stderr()));
        return Err(Stop(REFUSED, drawn));
    }
    Suite::from_json(&json).map_err(|why| Stop::refused(format!("{}: {why}", file.name)))
}

/// A fault of a test in the form that the compiler draws.
fn finding(fault: SuiteFault) -> kasprc::places::Finding {
    let SuiteFault { pointer, of_name, message, hints } = fault;
    kasprc::places::Finding { pointer, of_name, message, hints }
}

/// The nearest name, where one is near enough to be meant.
fn nearest(name: &str, names: &[String]) -> Option<String> {
    kasprc::diagnostics::nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The line of a JSON pointer in an app's tests, read again: an update may have moved it.
fn line(app: &Tested, pointer: &str) -> Option<u32> {
    tests_of(&app.folder).ok().map(|file| kasprc::places::line(&file, pointer))
}

/// Writes what came into an app's tests; all other text of the file stays.
fn save(app: &Tested, puts: &[Put]) -> Result<(), String> {
    let file = tests_of(&app.folder).map_err(|Stop(_, why)| why)?;
    let text = kasprc::rewrite::rewrite(&file, puts)?;
    std::fs::write(&file.name, text).map_err(|error| error.to_string())
}

/// # Errors
///
/// There is neither a cluster nor `--local`.
fn needs_servers(settings: &Settings, otherwise: &str) -> Result<(), Stop> {
    if settings.get("bootstrapServers").is_some() {
        return Ok(());
    }
    Err(Stop::refused(format!("where to? --bootstrap-servers HOST:PORT names the Kafka cluster{otherwise}")))
}

/// The plan, and the settings that it runs with.
///
/// # Errors
///
/// In this order: flags that cannot be read, specs that do not compile, and what cannot be run yet.
fn prepare(arguments: &AppArguments, paths: &[PathBuf], given: &Given) -> Result<(Rc<Plan>, Settings), Stop> {
    for flag in &arguments.kafka {
        flag.pair().map_err(Stop::refused)?;
    }
    let plan = Rc::new(plan(paths, &known_settings(arguments, given))?);
    let settings = Settings::resolve(&arguments.flags(), &given.variables, &plan.app);
    can_run(&plan, &settings)?;
    Ok((plan, settings))
}

/// Refuses by name what cannot be run yet.
///
/// # Errors
///
/// A line for each of them: see `check::unsupported`.
fn can_run(plan: &Plan, settings: &Settings) -> Result<(), Stop> {
    let config = settings.config(plan, 0).map_err(Stop::refused)?;
    let missing = unsupported(plan, &config.policies(plan));
    if !missing.is_empty() {
        let lines: Vec<_> = missing.iter().map(|missing| format!("error: {missing}")).collect();
        return Err(Stop(REFUSED, lines.join("\n")));
    }
    Ok(())
}

/// Specs are compiled for the CPython that will run them.
fn options() -> kasprc::Options {
    let version = python::version();
    let mut parts = version.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => {
            kasprc::Options { python_version: (major, minor), ..kasprc::Options::default() }
        }
        // A version that cannot be read: the compiler then assumes its default.
        _ => kasprc::Options::default(),
    }
}

/// Serializers of topics whose spec names none, where a variable does.
///
/// # Errors
///
/// There is no such serializer.
fn serialized_by(options: kasprc::Options, settings: &Settings) -> Result<kasprc::Options, Stop> {
    let codec = |name: &str| {
        let said = settings.get(name).map(|text| text.parse::<Codec>().map_err(|_| (name, text))).transpose();
        said.map_err(|(name, text)| {
            Stop::refused(format!("the setting \"{name}\" is \"{text}\": there is no such serializer"))
        })
    };
    Ok(kasprc::Options { key_codec: codec("keySerializer")?, value_codec: codec("valueSerializer")?, ..options })
}

/// A setting that stands where a path is expected is not printed: it may be a secret.
///
/// # Errors
///
/// The text has the name, and not the value.
fn refuse_settings(paths: &[PathBuf]) -> Result<(), Stop> {
    let name = |path: &PathBuf| path.to_string_lossy().split_once('=').map(|(name, _)| name.to_owned());
    match paths.iter().filter(|path| !path.exists()).find_map(name) {
        Some(name) => Err(Stop::refused(format!(
            "\"{name}=…\" is no file: a setting of the Kafka clients is given as --kafka KEY=VALUE, with the flag before each"
        ))),
        None => Ok(()),
    }
}

/// The plan of the paths: one plan.json, or specs that are compiled here.
///
/// # Errors
///
/// Files that cannot be read, a plan of another version, or faults of a spec, which were said already.
fn plan(paths: &[PathBuf], settings: &Settings) -> Result<Plan, Stop> {
    refuse_settings(paths)?;
    if let [path] = paths
        && path.extension().is_some_and(|extension| extension == "json")
    {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Stop::refused(format!("cannot read \"{}\": {error}", path.display())))?;
        return Plan::from_json(&text).map_err(|error| Stop::refused(format!("{}: {error}", path.display())));
    }
    let files = kasprc::load::files(paths).map_err(Stop::refused)?;
    let compiled = kasprc::compile(&files, &serialized_by(options(), settings)?);
    let faults = match speaks_json() {
        true => kasprc::diagnostics::to_json(&compiled.diagnostics, &files),
        false => kasprc::render(&compiled.diagnostics, &files, has_colours(&std::io::stderr())),
    };
    say_faults(&faults);
    compiled.plan.ok_or_else(|| {
        leave_last_words(faults.trim_end().as_bytes());
        Stop(REFUSED, String::new())
    })
}
