//! Lines of user code: where a frame of it stands in the specs, in words that also help those who never see the file.
//!
//! | the block is written | its code objects have | a failure says |
//! |---|---|---|
//! | literally (`\|`) | file and lines of the YAML | `agent.yaml:14` |
//! | in quotes or folded, one line of Python a line | the same | `agent.yaml:14 (orders/count line 3)` |
//! | in quotes, several lines of Python on one | a name of their own and its lines: `orders/count`, 3 | the same |
//!
//! The operator writes specs anew before it mounts them, with all Python in quotes: its users know the block and not
//! the file.

use std::collections::BTreeSet;

use kaspr_ir::plan::{Block, BlockId, LineMap, Plan};

/// The lines of all blocks of a plan.
#[derive(Debug, Default)]
pub struct Lines(Vec<Placed>);

/// A block's lines.
#[derive(Debug)]
struct Placed {
    /// The block's name for people: `orders/count`.
    name: String,
    /// The file of its code objects: the YAML's, or its name.
    file: String,
    /// The file that it stands in.
    yaml: String,
    lines: LineMap,
}

impl Lines {
    /// The lines of a plan's blocks. Names that several blocks share are numbered.
    pub fn of(plan: &Plan) -> Lines {
        let mut names = BTreeSet::new();
        let placed = plan.blocks.iter().map(|block| {
            let name = block.name();
            let numbered = (2..).map(|number| format!("{name}/{number}"));
            // A frame has nothing but its file's name to be found by, so two blocks must not share one.
            let name = std::iter::once(name.clone()).chain(numbered).find(|name| !names.contains(name));
            let name = name.expect("numbers do not end");
            names.insert(name.clone());
            let yaml = plan[block.file].clone();
            let file = if shares_lines(block) { name.clone() } else { yaml.clone() };
            Placed { name, file, yaml, lines: block.lines.clone() }
        });
        Lines(placed.collect())
    }

    /// The file of a block's code objects.
    pub fn file(&self, id: BlockId) -> &str {
        &self.0[id.index()].file
    }

    /// True if the block's code objects have lines of their own, and not the YAML's.
    pub fn are_own(&self, id: BlockId) -> bool {
        self.0[id.index()].has_own_lines()
    }

    /// Tells files of user code from those of libraries.
    pub fn has(&self, file: &str) -> bool {
        self.0.iter().any(|placed| placed.file == file)
    }

    /// The place of a line of user code.
    pub fn place(&self, file: &str, line: u32) -> String {
        let row = |placed: &Placed| placed.row(line).map(|row| (placed.name.clone(), placed.yaml_line(row), row));
        let of_file = self.0.iter().filter(|placed| placed.file == file);
        let yaml = of_file.clone().next().map_or(file, |placed| &placed.yaml);
        // Blocks of one YAML file share its name: the one that has this line is meant.
        match of_file.filter(|placed| !matches!(placed.lines, LineMap::Literal { .. })).find_map(row) {
            Some((name, at, row)) => format!("{yaml}:{at} ({name} line {row})"),
            None => format!("{yaml}:{line}"),
        }
    }
}

impl Placed {
    fn has_own_lines(&self) -> bool {
        self.file == self.name && self.file != self.yaml
    }

    /// The line of the Python, counted from 1, that has this line in the code objects; `None`: it is another block's.
    fn row(&self, line: u32) -> Option<u32> {
        match &self.lines {
            LineMap::Literal { .. } => None,
            LineMap::Each(lines) if self.has_own_lines() => {
                (1..=u32::try_from(lines.len()).unwrap_or(u32::MAX)).contains(&line).then_some(line)
            }
            LineMap::Each(lines) => {
                let at = lines.iter().position(|(at, _)| *at == line)?;
                u32::try_from(at + 1).ok()
            }
        }
    }

    fn yaml_line(&self, row: u32) -> u32 {
        self.lines.at(row, 1).0
    }
}

/// True if two lines of a block's Python stand on one line of the YAML: then that line does not tell them apart.
fn shares_lines(block: &Block) -> bool {
    match &block.lines {
        LineMap::Literal { .. } => false,
        // Lines never go back in the YAML, so equal ones are neighbours.
        LineMap::Each(lines) => lines.windows(2).any(|pair| pair[0].0 == pair[1].0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(name: &str, file: &str, lines: LineMap) -> Placed {
        Placed { name: name.to_owned(), file: file.to_owned(), yaml: "a.yaml".to_owned(), lines }
    }

    #[test]
    fn lines_are_named_as_users_know_them() {
        let lines = Lines(vec![
            placed("orders/count", "orders/count", LineMap::Each(vec![(7, 12), (7, 30), (8, 3)])),
            placed("orders/pass", "a.yaml", LineMap::Each(vec![(12, 3)])),
            placed("orders/init", "a.yaml", LineMap::Literal { line: 20, column: 5 }),
        ]);
        assert_eq!(lines.place("orders/count", 2), "a.yaml:7 (orders/count line 2)");
        assert_eq!(lines.place("orders/count", 3), "a.yaml:8 (orders/count line 3)");
        assert_eq!(lines.place("a.yaml", 12), "a.yaml:12 (orders/pass line 1)");
        assert_eq!(lines.place("a.yaml", 21), "a.yaml:21");
        assert!(lines.has("orders/count") && lines.has("a.yaml") && !lines.has("json/decoder.py"));
    }
}
