//! The user's Python, read and never run: what a block defines, and what is wrong with it.
//!
//! Architecture invariant: only this folder names the parser's crates; it gives out types of its own.

mod bindings;
mod builtins;
#[cfg(test)]
mod corpus;
mod depth;
mod fields;
mod flow;
mod loose;
mod module;
mod reads;
mod scopes;
mod state;

pub use builtins::{builtins, is_builtin};
pub use loose::Loose;
pub use module::{read, with_room};
pub use state::TABLE_ATTRIBUTES;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use kaspr_ir::plan::{FieldUse, Shape};

/// The Python version whose syntax is accepted, unless another is named.
pub const VERSION: (u8, u8) = (3, 11);

/// A code block, as far as the compiler needs to know it. Ranges are bytes of its text.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Text that does not parse, and the reasons.
    pub faults: Vec<(Range<usize>, String)>,
    /// Functions defined at its top level, in source order.
    pub functions: Vec<Defined>,
    /// All names bound at its top level, imports included, or declared `global` anywhere.
    pub names: HashSet<String>,
    /// Names may be bound in ways that cannot be seen (`import *`, `exec`, `globals`).
    pub is_opaque: bool,
    /// It mentions `context`.
    pub mentions_context: bool,
    /// Names that it uses and neither defines nor gets from Python; each at its first use.
    pub unresolved: Vec<Unresolved>,
    /// Its names cannot be told: it is opaque, or deletes names.
    pub hides_names: bool,
    /// Imports relative to a package, which a block has not.
    pub relative_imports: Vec<Range<usize>>,
    /// Dotted names that its imports bind, where each is one thing.
    pub imports: HashMap<String, String>,
    /// Its functions that are coroutines, whatever runs before they are called.
    pub coroutines: HashSet<String>,
    /// Calls that nothing awaits, and those in `async def`.
    pub loose: Vec<Loose>,
    /// The limit that it exceeds; then it has not been read further.
    pub excess: Option<String>,
}

impl Module {
    /// It parses, so that what it defines is known.
    pub fn is_read(&self) -> bool {
        self.faults.is_empty() && self.excess.is_none()
    }
}

/// Reads the names that a block's top level binds; `None` where they cannot be told.
pub fn names_of_block(code: &str, version: (u8, u8)) -> Option<BTreeSet<String>> {
    let module = read(code, version);
    (module.is_read() && !module.is_opaque).then(|| module.names.into_iter().collect())
}

/// A name that a block uses and does not define.
#[derive(Clone, Debug)]
pub struct Unresolved {
    /// The name.
    pub name: String,
    /// Place of its first use.
    pub at: Range<usize>,
    /// Names of the block that could be used there.
    pub visible: Vec<String>,
}

/// A function defined at a block's top level.
#[derive(Clone, Debug)]
pub struct Defined {
    /// Its name.
    pub name: String,
    /// Place of the name.
    pub at: Range<usize>,
    /// Shape of a call's result.
    pub shape: Shape,
    /// Its parameters; `None` where a decorator may have changed them.
    pub parameters: Option<Parameters>,
    /// It only reads its first argument, as far as can be proven.
    pub only_reads: bool,
    /// The fields of its first argument that it uses, where it provably uses nothing else of it.
    pub uses: Option<FieldUse>,
    /// Uses of its parameters.
    pub uses_of_parameters: Vec<state::Use>,
    /// Some `return` or `yield` gives a value, or no call comes to its end, as far as can be seen.
    pub gives_value: bool,
    /// It returns a list that it builds.
    pub returns_list: bool,
}

/// Parameters of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// By position: names, and whether each has a default.
    pub positional: Vec<(String, bool)>,
    /// Number of them that cannot be given by keyword.
    pub positional_only: usize,
    /// By keyword only: names, and whether each has a default.
    pub keyword_only: Vec<(String, bool)>,
    /// `*args`.
    pub takes_more: bool,
    /// `**kwargs`.
    pub takes_keywords: bool,
}

impl Parameters {
    /// Finds the reason why `f(value, **keywords)` cannot be called; `None`: it can.
    pub fn refuses(&self, values: usize, keywords: &[&str]) -> Option<Refusal> {
        for keyword in keywords {
            let by_position =
                self.positional.iter().skip(self.positional_only.max(values)).any(|(name, _)| name == keyword);
            let by_name = self.keyword_only.iter().any(|(name, _)| name == keyword);
            if !by_position && !by_name && !self.takes_keywords {
                return Some(Refusal::Keyword((*keyword).to_owned()));
            }
        }
        let missing = self.positional.iter().skip(values).chain(&self.keyword_only);
        let needed = missing.filter(|(name, default)| !default && !keywords.contains(&name.as_str())).count();
        let too_many = values > self.positional.len() && !self.takes_more;
        (too_many || needed > 0).then(|| {
            let required = self.positional.iter().chain(&self.keyword_only);
            let required = required.filter(|(name, default)| !default && !keywords.contains(&name.as_str()));
            Refusal::Count(if too_many { self.positional.len() } else { required.count() })
        })
    }
}

/// Reason why a call does not fit a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no parameter of this name.
    Keyword(String),
    /// It takes so many values.
    Count(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(text: &str) -> Vec<(String, Shape)> {
        read(text, VERSION).functions.into_iter().map(|found| (found.name, found.shape)).collect()
    }

    #[test]
    fn functions_are_found_in_source_order() {
        let text = "import os\nif os.name:\n    def a(v): return v\nelse:\n    b = lambda v: v\nasync def c(v):\n    return 1\n\
                    def d(v):\n    yield 1\nasync def e(v):\n    yield 1\nf: object = lambda v: v\nclass C:\n    def g(self): pass\n";
        let expected = [
            ("a", Shape::Plain),
            ("b", Shape::Plain),
            ("c", Shape::Async),
            ("d", Shape::Generator),
            ("e", Shape::AsyncGenerator),
            ("f", Shape::Plain),
        ];
        assert_eq!(functions(text), expected.map(|(name, shape)| (name.to_owned(), shape)));
    }

    #[test]
    fn a_nested_yield_is_another_functions() {
        assert_eq!(functions("def a(v):\n    def b():\n        yield 1\n    return b\n")[0].1, Shape::Plain);
    }

    #[test]
    fn faults_have_their_place() {
        let module = read("def a(v)\n    return v\n", VERSION);
        assert_eq!(module.faults.len(), 1);
        assert_eq!(module.faults[0].0.start, 8);
    }

    fn refusal(text: &str, keywords: &[&str]) -> Option<Refusal> {
        read(text, VERSION).functions[0].parameters.clone().expect("it has no decorator").refuses(1, keywords)
    }

    #[test]
    fn calls_fit_or_say_why_not() {
        assert_eq!(refusal("def a(v): pass", &[]), None);
        assert_eq!(refusal("def a(v, x=1, *, y=2): pass", &[]), None);
        assert_eq!(refusal("def a(*args, **kw): pass", &["t"]), None);
        assert_eq!(refusal("def a(v, t): pass", &["t"]), None);
        assert_eq!(refusal("def a(): pass", &[]), Some(Refusal::Count(0)));
        assert_eq!(refusal("def a(v, w): pass", &[]), Some(Refusal::Count(2)));
        assert_eq!(refusal("def a(v): pass", &["t"]), Some(Refusal::Keyword("t".into())));
        assert_eq!(refusal("def a(t): pass", &["t"]), Some(Refusal::Keyword("t".into())));
    }

    fn only_reads(text: &str) -> bool {
        read(text, VERSION).functions[0].only_reads
    }

    #[test]
    fn reading_is_proven_or_denied() {
        for reads in [
            "def f(v): return v.get('a', False)",
            "def f(v):\n    'doc'\n    if v['a'] > 1 and 'b' in v:\n        return len(v['c']) == 2\n    return not v",
            "f = lambda v: v['x'] is None",
            "def f(v): return isinstance(v, dict)",
        ] {
            assert!(only_reads(reads), "{reads}");
        }
        for writes in [
            "def f(v): v['a'] = 1",
            "def f(v): return v.pop('a')",
            "def f(v): return v.setdefault('a', 1)",
            "def f(v): return g(v)",
            "def f(v):\n    w = v\n    return w",
            "def f(v):\n    for x in v: x.clear()",
            "def f(v): return v['a'].append(1)",
            "def f(v): return (v.update({}), 1)",
            "def f(v): return [x for x in v]",
            "async def f(v): return v['a']",
            "def f(v): return len(v)\ndef len(v): return v.pop()",
        ] {
            assert!(!only_reads(writes), "{writes}");
        }
    }
}
