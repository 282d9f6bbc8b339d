//! Items that an old and a new list have in common: the rest of the old list is what a rewrite may change.
//!
//! Items are compared as data, not as text: `'a'` and `"a"` are the same, and so are `1.5` and `1.50`.

use serde_json::Value;

use super::Node;
use super::data::json;

/// Above so many pairs of items, lists are compared from both ends only.
///
/// The longest common subsequence takes a cell for each pair: 2²⁰ cells of 8 bytes are 8 MiB.
const PAIRS_MAX: usize = 1 << 20;

/// The items that both lists hold, in order (a longest common subsequence), and the ends of both.
///
/// Pairs of numbers, old and new, in order. Equal items at both ends are matched first, which leaves little for
/// the table in the usual case, where one item of many has changed. The last pair is the two lengths: it closes
/// the last stretch between matches.
///
/// ```text
/// [a, b, c, d], [a, x, d]   ⇒   [(0, 0), (3, 2), (4, 3)]
/// ```
pub(super) fn matches(olds: &[Node], news: &[Node]) -> Vec<(usize, usize)> {
    let says = |nodes: &[Node]| nodes.iter().map(|node| serde_json::from_str(&json(node)).ok()).collect();
    let (olds, news): (Vec<Option<Value>>, Vec<Option<Value>>) = (says(olds), says(news));
    let head = olds.iter().zip(&news).take_while(|(old, new)| old == new).count();
    let (rest_old, rest_new) = (&olds[head..], &news[head..]);
    let tail = rest_old.iter().rev().zip(rest_new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (rest_old, rest_new) = (&rest_old[..rest_old.len() - tail], &rest_new[..rest_new.len() - tail]);
    let mut found: Vec<(usize, usize)> = (0..head).map(|at| (at, at)).collect();
    if rest_old.len() * rest_new.len() <= PAIRS_MAX {
        found.extend(common(rest_old, rest_new).into_iter().map(|(old, new)| (head + old, head + new)));
    }
    found.extend((0..tail).rev().map(|back| (olds.len() - 1 - back, news.len() - 1 - back)));
    found.push((olds.len(), news.len()));
    found
}

/// A longest common subsequence, as pairs of numbers.
fn common<T: PartialEq>(olds: &[T], news: &[T]) -> Vec<(usize, usize)> {
    // lengths[i][j]: how much olds[i..] and news[j..] have in common.
    let mut lengths = vec![vec![0_usize; news.len() + 1]; olds.len() + 1];
    for (i, old) in olds.iter().enumerate().rev() {
        for (j, new) in news.iter().enumerate().rev() {
            lengths[i][j] = match old == new {
                true => lengths[i + 1][j + 1] + 1,
                false => lengths[i + 1][j].max(lengths[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < olds.len() && j < news.len() {
        if olds[i] == news[j] {
            found.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}
