//! The user's Python, read and never run: what a block defines, and what is wrong with it.
//!
//! Architecture invariant: only this folder names the parser's crates; it gives out types of its own.
//!
//! A block's text goes in, a [`Module`] comes out; what it means for the spec is judged in `crate::check`, which also
//! knows the init block beside it.
//!
//! ```text
//! "import json                             Module {
//!  def parse(v, t):            ⇒               names: {json, parse}, imports: {json: json},
//!      t['n'] = len(v)                         functions: [Defined { name: parse, shape: Plain,
//!      return v"                                   parameters: (v, t), uses: None, gives_value: true }] }
//! ```
//!
//! One file a question: [`scopes`] (which names does nothing define?), [`flow`] (does a call end without a value?),
//! [`reads`] (does a function only read its value?), [`fields`] (which fields of it does it use?), [`state`] (is a
//! table's value changed and lost?), [`loose`] (is a coroutine dropped?).
//!
//! Two kinds of answers, and each errs on its own side:
//!
//! - *Proofs* that the executor builds on (`only_reads`, `uses`): a wrong yes would change data, so
//!   everything that is not understood is a no.
//! - *Faults* that the user sees: a wrong fault would refuse a good spec, so everything that is not understood is
//!   silence.

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
///
/// Another one is named by `kasprc --python-version` or [`crate::Options`].
pub const VERSION: (u8, u8) = (3, 11);

/// A code block, as far as the compiler needs to know it. Ranges are bytes of its text.
///
/// Made by [`read`], once for each block, and dropped after `check`. With `faults` or `excess` the rest is empty or
/// of a part of the block, and [`Module::is_read`] says so.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Text that does not parse, and the reasons.
    /// Of those of the grammar only the first: errors behind it are often its echoes.
    pub faults: Vec<(Range<usize>, String)>,
    /// Functions defined at its top level, in source order.
    /// A name that is defined twice stands here twice; the last one counts.
    pub functions: Vec<Defined>,
    /// All names bound at its top level, imports included, or declared `global` anywhere.
    pub names: HashSet<String>,
    /// Names may be bound in ways that cannot be seen (`import *`, `exec`, `globals`).
    /// Then nothing is said of names, and no proof about its functions holds.
    pub is_opaque: bool,
    /// It mentions `context`.
    /// Or holds code that could without naming it.
    pub mentions_context: bool,
    /// Names that it uses and neither defines nor gets from Python; each at its first use.
    pub unresolved: Vec<Unresolved>,
    /// Its names cannot be told: it is opaque, or deletes names.
    pub hides_names: bool,
    /// Imports relative to a package, which a block has not.
    pub relative_imports: Vec<Range<usize>>,
    /// Dotted names that its imports bind, where each is one thing.
    /// `{"dt": "datetime.datetime"}` for `from datetime import datetime as dt`.
    pub imports: HashMap<String, String>,
    /// Its functions that are coroutines, whatever runs before they are called.
    pub coroutines: HashSet<String>,
    /// Calls that nothing awaits, and those in `async def`.
    pub loose: Vec<Loose>,
    /// The limit that it exceeds; then it has not been read further.
    /// In words: `128 KiB of Python`.
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
    /// For "did you mean".
    pub visible: Vec<String>,
}

/// A function defined at a block's top level.
///
/// By `def`, `async def`, or a lambda that is assigned to a name. Nested functions and methods are none.
#[derive(Clone, Debug)]
pub struct Defined {
    /// Its name.
    pub name: String,
    /// Place of the name.
    pub at: Range<usize>,
    /// Shape of a call's result.
    /// Unknown behind a decorator, which may return anything.
    pub shape: Shape,
    /// Its parameters; `None` where a decorator may have changed them.
    pub parameters: Option<Parameters>,
    /// It only reads its first argument, as far as can be proven.
    /// The rule `forward` lets bytes pass by it, see [`reads`].
    pub only_reads: bool,
    /// The fields of its first argument that it uses, where it provably uses nothing else of it.
    /// The rule `project` decodes by it, see [`fields`]. `None`: it may use all of it.
    pub uses: Option<FieldUse>,
    /// Uses of its parameters.
    /// Of all parameters: which of them is a table or a batch is known to `check`.
    pub uses_of_parameters: Vec<state::Use>,
    /// Some `return` or `yield` gives a value, or no call comes to its end, as far as can be seen.
    pub gives_value: bool,
    /// It returns a list that it builds.
    pub returns_list: bool,
}

/// Parameters of a function.
///
/// Counted as CPython does for a call; annotations and the values of defaults do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// By position: names, and whether each has a default.
    /// Parameters before `/` come first, see `positional_only`.
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
    /// Finds the reason why a call with so many positional values and these keywords fails; `None`: it does not.
    ///
    /// A keyword that is not taken is found before a wrong count, because it is the likelier slip.
    ///
    /// ```text
    /// def f(v, *, t):           refuses(1, ["t"])  ⇒  None
    /// def f(v):                 refuses(1, ["t"])  ⇒  Keyword("t")
    /// def f(v, w, x=1):         refuses(1, [])     ⇒  Count(2)
    /// def f():                  refuses(1, [])     ⇒  Count(0)
    /// ```
    pub fn refuses(&self, values: usize, keywords: &[&str]) -> Option<Refusal> {
        for keyword in keywords {
            // A parameter that a value fills already cannot get a keyword too.
            let by_position =
                self.positional.iter().skip(self.positional_only.max(values)).any(|(name, _)| name == keyword);
            let by_name = self.keyword_only.iter().any(|(name, _)| name == keyword);
            if !by_position && !by_name && !self.takes_keywords {
                return Some(Refusal::Keyword((*keyword).to_owned()));
            }
        }
        let missing = self.positional.iter().skip(values).chain(&self.keyword_only);
        let needed = missing.filter(|(name, default)| !default && !keywords.contains(&name.as_str())).count();
        // `*args` takes any number more.
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
