//! The one list of codes. A code is never reused; each has a page.
//!
//! The number says where a fault is found: K00 in the text and its fields, K01 in inputs, K02 in pipelines, K03 in
//! tables, K04 in outputs, policies and settings, K05 in Python, K06 in what is not supported.
//!
//! To add one: a line in the list below, the check that raises it, and its folder in `specs/errors/` with the four
//! files of [`Page`]. The build fails without the files, and a test without a check that raises it.

use super::Severity;

/// Texts about a code: its folder in `specs/errors/`.
///
/// Compiled into the program, so that `kasprc --explain` needs no files.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Explanation: the fault, the reason, the remedy.
    pub text: &'static str,
    /// A spec that raises it.
    pub broken: &'static str,
    /// Output of kasprc for that spec.
    pub said: &'static str,
    /// The spec, mended.
    pub mended: &'static str,
}

// `include_str!` needs the whole path at compile time: that is why a code's line names its folder.
macro_rules! page {
    ($code:ident $fault:literal) => {
        Page {
            text: page!($code $fault "page.md"),
            broken: page!($code $fault "broken.yaml"),
            said: page!($code $fault "expected.txt"),
            mended: page!($code $fault "mended.yaml"),
        }
    };
    ($code:ident $fault:literal $file:literal) => {
        include_str!(concat!("../../../specs/errors/", stringify!($code), "-", $fault, "/", $file))
    };
}

// One line a code; enum, severity, title, name and folder are all made from it, so they cannot disagree.
macro_rules! codes {
    ($($code:ident $severity:ident $fault:literal $title:literal;)*) => {
        /// A fault's stable name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the pages say what each is")]
        pub enum Code { $($code,)* }

        impl Code {
            /// All codes, in order.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// Gives its severity where the check sets no other.
            ///
            /// An error stops the compile; see [`Severity`].
            pub fn severity(self) -> Severity {
                match self { $(Code::$code => Severity::$severity,)* }
            }

            /// Gives its title.
            ///
            /// For lists of codes; the message of a diagnostic names the thing that is at fault.
            pub fn title(self) -> &'static str {
                match self { $(Code::$code => $title,)* }
            }

            /// `K0201`.
            pub fn name(self) -> &'static str {
                match self { $(Code::$code => stringify!($code),)* }
            }

            /// Its folder in `specs/errors/`: `K0201-unknown-operation`.
            pub fn folder(self) -> &'static str {
                match self { $(Code::$code => concat!(stringify!($code), "-", $fault),)* }
            }

            /// Its page and examples.
            pub fn page(self) -> Page {
                match self { $(Code::$code => page!($code $fault),)* }
            }
        }
    };
}

codes! {
    K0001 Error "malformed-yaml" "the file is not well-formed YAML";
    K0002 Error "unknown-field" "unknown field";
    K0003 Error "wrong-type" "a field has a value of the wrong kind";
    K0004 Error "unknown-kind" "unknown kind";
    K0005 Error "missing-field" "a required field is missing";
    K0006 Error "limit-exceeded" "the document exceeds a limit";
    K0007 Error "duplicate-key" "duplicate key";
    K0008 Error "duplicate-component" "two components of the app have the same name";
    K0009 Warning "unused-allowance" "an allowance accepts nothing";
    K0101 Error "no-input" "the input names neither a topic nor a channel";
    K0102 Error "topic-and-channel" "the input names both a topic and a channel";
    K0103 Error "name-and-pattern" "the input topic has both a name and a pattern";
    K0104 Error "take-out-of-range" "\"take.max\" is out of its range";
    K0105 Error "not-a-duration" "not a duration";
    K0106 Error "not-a-serializer" "not a serializer";
    K0107 Error "not-a-pattern" "the pattern is not a regular expression";
    K0108 Error "channel-without-writer" "no agent writes the channel";
    K0109 Error "topic-name-not-allowed" "the topic name is not allowed by Kafka";
    K0110 Error "take-on-a-channel" "\"take\" on a channel input";
    K0111 Error "half-of-take" "half of \"take\" is missing";
    K0112 Warning "channel-without-reader" "nobody reads the channel";
    K0113 Error "name-not-for-kubernetes" "Kubernetes refuses a name";
    K0114 Error "too-many-readers" "more agents read the topic than its offsets can tell of";
    K0201 Error "unknown-operation" "the pipeline names an operation that is not defined";
    K0202 Error "duplicate-operation" "an operation is defined twice";
    K0203 Error "empty-operation" "an operation has none of map, filter, topicSend";
    K0204 Error "ambiguous-operation" "an operation has more than one of map, filter, topicSend";
    K0205 Warning "unused-operation" "an operation is in no pipeline";
    K0206 Error "channel-loop" "channels form a loop";
    K0301 Error "unknown-table" "the table is not declared";
    K0302 Error "shared-parameter" "two tables of an operation share a parameter";
    K0303 Error "table-parameter-not-taken" "the function does not take the table parameter";
    K0304 Warning "key-serializers-differ" "topic and table have different key serializers";
    K0305 Error "partitions-of-topics-differ" "topics that share a table have different partition counts";
    K0306 Error "partitions-of-tables-differ" "tables of an agent have different partition counts";
    K0307 Error "window-kind" "a window is neither tumbling nor hopping, or both";
    K0308 Error "window-time" "a window's time";
    K0401 Error "name-and-selector" "the output has both name and nameSelector";
    K0402 Error "no-name-and-no-selector" "the output has neither name nor nameSelector";
    K0403 Error "pickle-runs-code" "pickle runs code from messages";
    K0404 Warning "writes-its-input" "the agent writes the topic that it reads";
    K0405 Warning "no-offset-in-metadata" "the metadata of \"topicSend\" holds no offset";
    K0406 Error "unknown-action" "not an action of \"onError\"";
    K0407 Warning "no-dead-letter-topic" "the dead letter topic is not named";
    K0408 Error "timeout-out-of-range" "the timeout is out of its range";
    K0409 Warning "sink-outside-the-transaction" "a custom sink is outside the transaction";
    K0410 Warning "unknown-setting" "an unknown setting of the app";
    K0411 Error "setting-without-sense" "a setting of the app has a value that makes no sense";
    K0412 Warning "policy-field-without-effect" "a field of the policy has no effect";
    K0501 Error "malformed-python" "the Python does not parse";
    K0502 Error "unknown-entrypoint" "the entrypoint is not defined";
    K0503 Error "no-function" "the block defines no function";
    K0504 Warning "several-functions" "several functions and no entrypoint";
    K0505 Error "wrong-number-of-values" "the function takes another number of values";
    K0506 Error "undefined-name" "a name is not defined";
    K0507 Warning "function-without-value" "a function never returns a value";
    K0508 Warning "list-of-a-batch" "a batch function returns a list";
    K0510 Error "relative-import" "a relative import";
    K0511 Warning "generator-as-filter" "the filter is a generator";
    K0512 Warning "coroutine-not-awaited" "a coroutine is not awaited";
    K0513 Warning "blocking-call" "a call blocks the event loop";
    K0514 Warning "change-never-assigned" "a change of a table's value is never assigned back";
    K0515 Warning "unknown-table-attribute" "tables have no such attribute";
    K0516 Warning "batch-as-dict" "a batch is asked like a dict";
    K0601 Error "not-supported-yet" "not supported yet";
    K0602 Warning "dropped-by-the-operator" "the operator drops a field";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_listed_in_order() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].name() < pair[1].name()));
    }
}
