//! The one list of codes. A code is never reused; each has a page.

use super::Severity;

/// What there is to read about a code: its folder in `specs/errors/`.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// What it is, why it is a fault, what to do.
    pub text: &'static str,
    /// A spec that raises it.
    pub broken: &'static str,
    /// What kasprc says of that spec.
    pub said: &'static str,
    /// The spec, mended.
    pub mended: &'static str,
}

macro_rules! page {
    ($code:ident) => {
        Page {
            text: page!($code "page.md"),
            broken: page!($code "broken.yaml"),
            said: page!($code "expected.txt"),
            mended: page!($code "mended.yaml"),
        }
    };
    ($code:ident $file:literal) => {
        include_str!(concat!("../../../specs/errors/", stringify!($code), "/", $file))
    };
}

macro_rules! codes {
    ($($code:ident $severity:ident $title:literal;)*) => {
        /// A fault's stable name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the pages say what each is")]
        pub enum Code { $($code,)* }

        impl Code {
            /// All codes, in order.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// How severe it is where nothing else is said.
            pub fn severity(self) -> Severity {
                match self { $(Code::$code => Severity::$severity,)* }
            }

            /// What it is about, in a line.
            pub fn title(self) -> &'static str {
                match self { $(Code::$code => $title,)* }
            }

            /// `K0201`.
            pub fn name(self) -> &'static str {
                match self { $(Code::$code => stringify!($code),)* }
            }

            /// What there is to read about it.
            pub fn page(self) -> Page {
                match self { $(Code::$code => page!($code),)* }
            }
        }
    };
}

codes! {
    K0001 Error "the file is not well-formed YAML";
    K0002 Error "unknown field";
    K0003 Error "a field has a value of the wrong kind";
    K0004 Error "unknown kind";
    K0005 Error "a required field is missing";
    K0006 Error "the document exceeds a limit";
    K0007 Error "duplicate key";
    K0008 Error "two components of the app have the same name";
    K0101 Error "the input names neither a topic nor a channel";
    K0102 Error "the input names both a topic and a channel";
    K0103 Error "the input topic has both a name and a pattern";
    K0104 Error "\"take.max\" must be at least 1";
    K0105 Error "not a duration";
    K0106 Error "not a serializer";
    K0107 Error "the pattern is not a regular expression";
    K0108 Error "no agent writes the channel";
    K0109 Error "the topic name is not allowed by Kafka";
    K0110 Error "\"take\" on a channel input";
    K0111 Error "half of \"take\" is missing";
    K0201 Error "the pipeline names an operation that is not defined";
    K0202 Error "an operation is defined twice";
    K0203 Error "an operation has none of map, filter, topicSend";
    K0204 Error "an operation has more than one of map, filter, topicSend";
    K0205 Warning "an operation is in no pipeline";
    K0206 Error "channels form a loop";
    K0301 Error "the table is not declared";
    K0302 Error "two tables of an operation share a parameter";
    K0303 Error "the function does not take the table parameter";
    K0304 Warning "topic and table have different key serializers";
    K0305 Error "topics that share a table have different partition counts";
    K0306 Error "tables of an agent have different partition counts";
    K0307 Error "a window is neither tumbling nor hopping, or both";
    K0308 Error "a window's time";
    K0401 Error "the output has both name and nameSelector";
    K0402 Error "the output has neither name nor nameSelector";
    K0403 Warning "pickle runs code from messages";
    K0404 Warning "the agent writes the topic that it reads";
    K0405 Warning "the metadata of \"topicSend\" holds no offset";
    K0406 Error "not an action of \"onError\"";
    K0407 Warning "the dead letter topic is not named";
    K0408 Error "the timeout is longer than the longest";
    K0409 Warning "a custom sink is outside the transaction";
    K0501 Error "the Python does not parse";
    K0502 Error "the entrypoint is not defined";
    K0503 Error "the block defines no function";
    K0504 Warning "several functions and no entrypoint";
    K0505 Error "the function takes another number of values";
    K0506 Error "a name is not defined";
    K0507 Warning "the predicate never returns a value";
    K0508 Warning "a batch function returns a list";
    K0510 Error "a relative import";
    K0511 Warning "the filter is a generator";
    K0601 Error "not supported yet";
    K0602 Warning "the operator drops a field";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_listed_in_order() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].name() < pair[1].name()));
    }
}
