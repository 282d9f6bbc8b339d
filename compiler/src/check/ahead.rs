//! Blocks of Python read ahead of the checks, on all cores.
//!
//! To read a block is most of the work of a check, needs nothing but its text, and gives the same whoever does it. So
//! the faults, and their order, are those of a check that reads each block when it comes to it.

use std::collections::HashMap;

use crate::ast::{Agent, Code};
use crate::cores::on_all;
use crate::python::{Module, read, with_room};

/// The least number of blocks for a core.
const BLOCKS_MIN: usize = 64;

/// Blocks that were read ahead, by file and place in it.
#[derive(Debug, Default)]
pub struct Ahead(HashMap<(usize, usize), Module>);

impl Ahead {
    /// Reads the blocks of operations, in which nearly all Python of an app stands.
    pub fn of(agents: &[Agent], version: (u8, u8)) -> Ahead {
        let operations = agents.iter().flat_map(|agent| &agent.operations);
        let codes: Vec<&Code> =
            operations.flat_map(|operation| operation.map.iter().chain(&operation.filter)).collect();
        let read_part = |_, codes: &[&Code]| {
            with_room(|| codes.iter().map(|code| (place(code), read(&code.text, version))).collect())
        };
        Ahead(on_all(&codes, BLOCKS_MIN, read_part).into_iter().collect())
    }

    /// Takes what was read of a block, or reads it now.
    pub fn take(&mut self, code: &Code, version: (u8, u8)) -> Module {
        self.0.remove(&place(code)).unwrap_or_else(|| read(&code.text, version))
    }
}

fn place(code: &Code) -> (usize, usize) {
    (code.at.file, code.at.start)
}

#[cfg(test)]
mod tests {
    use crate::{Options, SourceFile, compile};

    /// An app of many agents; one of them, in the middle, has a fault.
    fn app(agents: usize) -> Vec<SourceFile> {
        let agent = |number: usize| {
            let mark = if number == agents / 2 { "misspelt" } else { "value" };
            format!(
                "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: a-{number}}}\nspec:\n  input: \
                 {{topic: {{name: in-{number}}}}}\n  processors:\n    pipeline: [f]\n    operations:\n      - name: \
                 f\n        map:\n          python: |\n            def f(value):\n                print({mark})\n                return value\n"
            )
        };
        let file = |number| SourceFile { name: format!("{number}.yaml"), bytes: agent(number).into_bytes() };
        (0..agents).map(file).collect()
    }

    #[test]
    fn many_blocks_have_the_faults_that_few_have() {
        let faults = |agents| {
            let files = app(agents);
            let faults = compile(&files, &Options::default()).diagnostics;
            let shown =
                faults.iter().map(|fault| (fault.code, fault.message.clone(), files[fault.at.file].name.clone()));
            shown.collect::<Vec<_>>()
        };
        let (few, many) = (faults(3), faults(400));
        assert_eq!((few.len(), many.len()), (1, 1), "{few:?} {many:?}");
        assert_eq!((&few[0].1, few[0].2.as_str(), many[0].2.as_str()), (&many[0].1, "1.yaml", "200.yaml"));
    }
}
