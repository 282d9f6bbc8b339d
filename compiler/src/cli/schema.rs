//! `kasprc schema`.

use std::process::ExitCode;

use clap::ValueEnum;
use kasprc::schema::{Form, schema};

use super::write;

/// The form of the specs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpecForm {
    /// Kubernetes resources in camelCase.
    Kubernetes,
    /// Definitions that the operator mounts into pods, in snake_case.
    Definition,
}

/// Prints the JSON Schema of a form.
///
/// Indented JSON with a line break at its end.
pub fn run(form: SpecForm) -> ExitCode {
    let form = match form {
        SpecForm::Kubernetes => Form::Kubernetes,
        SpecForm::Definition => Form::Definition,
    };
    write(&format!("{:#}\n", schema(form)), None)
}
