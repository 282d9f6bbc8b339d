//! The changelog topics of tables: made compacted where they are missing, and looked at before the
//! first event, as are the partition counts of topics that share a table.
//!
//! A table's changelog has one partition for each of its inputs', because events and state of one partition
//! are one worker's. So all inputs of a table must have the same count, and the changelog that one:
//!
//! ```text
//! orders (6 partitions) ─┐
//!                        ├─▶ table totals ─▶ shop-totals-changelog (6)
//! refunds (6 partitions) ┘
//! rates (1 partition) ─────▶ global table rates ─▶ shop-rates-changelog (1)
//! ```

use std::collections::BTreeMap;

use kaspr_ir::plan::{Plan, Table, TableId, Topics};
use tracing::{info, warn};

use crate::assignment::Reads;
use crate::broker::{Access, Admin, BrokerError, NewTopic};
use crate::check::topics::{FORBIDDEN, Found, Named, SPEC, denied, not_yet};
use crate::config::NewTopics;
use crate::tables::changelog;
use crate::tables::restore::used;

/// Looks for the changelogs of all tables that agents use; `make` makes those that are missing. `found` are
/// the topics that the plan names. Without `make` it only looks. Returns a finding per table, in the plan's
/// order.
///
/// # Errors
///
/// Questions that the broker did not answer; a creation that failed. Faults of single tables are findings.
pub fn prepare(
    plan: &Plan,
    app: &str,
    found: &[Found],
    admin: &mut dyn Admin,
    (make, new): (bool, NewTopics),
) -> Result<Vec<Found>, BrokerError> {
    let mut all = Vec::new();
    for (id, table) in (0..).map(TableId).zip(&plan.tables) {
        let Some(inputs) = inputs((plan, new), id, found, admin)? else { continue };
        let at = format!("{}:{}", plan[table.place.file], table.place.line);
        let by = format!("the changelog of table \"{}\"", table.name);
        let uses = Access { read: true, write: true };
        let named = Named { name: changelog(app, &table.name), by, at, declares: SPEC, uses };
        let mut found = Found { named, partitions: Ok(0), created: false, is_made_by_run: false };
        match needed(table, &inputs) {
            Ok(count) => look((table, count), &mut found, admin, (make, new))?,
            Err(why) => found.partitions = Err(why),
        }
        all.push(found);
    }
    Ok(all)
}

/// Topics whose events may touch a table, and their partitions; `None` where no agent uses it, or where a
/// topic is missing, which is reported elsewhere.
///
/// # Errors
///
/// The errors of the questions about topics that match a pattern.
fn inputs(
    (plan, new): (&Plan, NewTopics),
    table: TableId,
    found: &[Found],
    admin: &mut dyn Admin,
) -> Result<Option<BTreeMap<String, i32>>, BrokerError> {
    let readers: Vec<_> = plan.readers.iter().filter(|reader| used(plan, &reader.agents).contains(&table)).collect();
    let mut inputs = BTreeMap::new();
    for reader in &readers {
        match &reader.topics {
            Topics::Names(names) => {
                for name in names {
                    let known = found.iter().find(|found| found.named.name == *name);
                    let partitions = match known {
                        Some(Found { partitions: Ok(partitions), .. }) => Some(*partitions),
                        // `kaspr-exec check` on an empty cluster: the input comes with the run, and so does
                        // the changelog.
                        Some(Found { is_made_by_run: true, .. }) => declared((plan, new), name),
                        _ => None,
                    };
                    let Some(partitions) = partitions else { return Ok(None) };
                    inputs.insert(name.clone(), partitions);
                }
            }
            Topics::Pattern(_) => {
                let reads = Reads::of(&reader.topics);
                for name in admin.topics()?.into_iter().filter(|name| reads.reads(name)) {
                    let partitions = admin.partitions(&name)?.unwrap_or(0);
                    inputs.insert(name, partitions);
                }
            }
        }
    }
    Ok((!readers.is_empty()).then_some(inputs))
}

/// The partitions that a topic will have when a run has created it; `None`: as the brokers say. Called for a
/// topic that a run would create.
fn declared((plan, new): (&Plan, NewTopics), topic: &str) -> Option<i32> {
    let declared = plan.topics.iter().find(|declared| declared.name == topic)?;
    declared.partitions.or(new.partitions).and_then(|count| i32::try_from(count).ok())
}

/// The partitions that a table's changelog must have.
///
/// `inputs` are its topics with their counts.
///
/// ```text
/// orders 6, refunds 6   →  Ok(6)
/// orders 6, refunds 3   →  Err("cannot be: the topics …")
/// no topic yet          →  Ok(the table's "partitions"), or Err if it has none
/// global                →  Ok(1)
/// ```
fn needed(table: &Table, inputs: &BTreeMap<String, i32>) -> Result<i32, String> {
    if table.global {
        return Ok(1);
    }
    let declared = table.partitions.and_then(|count| i32::try_from(count).ok());
    let mut inputs = inputs.iter();
    // A pattern that matches no topic yet: the count can only come from the spec.
    let Some((first, &count)) = inputs.next() else {
        return declared.ok_or_else(|| {
            "needs a number of partitions, and no topic matches the pattern yet: write \"partitions\" in the table"
                .to_owned()
        });
    };
    if let Some((other, others)) = inputs.find(|(_, other)| **other != count) {
        return Err(format!(
            "cannot be: the topics \"{first}\" ({count} partitions) and \"{other}\" ({others}) feed the table and must have equal partition counts; repartition one of them through an agent of its own, or make the table global"
        ));
    }
    match declared {
        // The count follows from the inputs. One that is written as well may only agree with them.
        Some(declared) if declared != count => Err(format!(
            "needs {count} partitions, as the topic \"{first}\" has, and the table says {declared}: remove its \"partitions\""
        )),
        _ => Ok(count),
    }
}

/// Looks at one changelog, creates it if it should, and writes what it finds into `found`. `needed` is the
/// count of partitions that it must have.
fn look(
    (table, needed): (&Table, i32),
    found: &mut Found,
    admin: &mut dyn Admin,
    (make, new): (bool, NewTopics),
) -> Result<(), BrokerError> {
    let name = found.named.name.clone();
    let mut partitions = match admin.partitions(&name) {
        // Most often a missing right: then the finding names it. Anything else is an error of the whole
        // check.
        Err(error @ BrokerError::Group(_)) => {
            found.partitions = Err(denied(&found.named, admin)?.ok_or(error)?);
            return Ok(());
        }
        partitions => partitions?,
    };
    if partitions.is_none() && make && new.may_create {
        // Compacted from the start: a changelog with retention would lose keys that are not written again.
        admin.create(&new_topic(&name, (table, needed), new))?;
        info!(topic = %name, partitions = needed, "created the topic, compacted");
        (partitions, found.created) = (admin.partitions(&name)?, true);
    }
    found.partitions = match partitions {
        // Kafka can add partitions, but keys that were written before stay where they are.
        Some(partitions) if partitions != needed => Err(format!(
            "has {partitions} partitions and needs {needed}: its records cannot be divided again; delete the topic and reset the group to build the table from its input again"
        )),
        Some(partitions) => {
            if !make {
                compare(&name, table, admin)?;
            }
            denied(&found.named, admin)?.map_or(Ok(partitions), Err)
        }
        None if !new.may_create => {
            let s = if needed == 1 { "" } else { "s" };
            Err(format!("{FORBIDDEN} (compacted, {needed} partition{s})"))
        }
        None => {
            let objection = admin.objection(&new_topic(&name, (table, needed), new))?;
            found.is_made_by_run = objection.is_none();
            Err(not_yet(objection))
        }
    };
    Ok(())
}

/// Compacted, unless the table's own settings say otherwise.
fn new_topic(name: &str, (table, partitions): (&Table, i32), new: NewTopics) -> NewTopic {
    let mut config = BTreeMap::from([("cleanup.policy", "compact")]);
    config.extend(table.topic_config.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let config = config.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    NewTopic {
        name: name.to_owned(),
        partitions: u32::try_from(partitions).ok(),
        replicas: new.replicas,
        config: config.collect(),
    }
}

/// Reports where a changelog that exists is not as it would be made. A changelog is never altered, since its
/// records are the table.
fn compare(name: &str, table: &Table, admin: &mut dyn Admin) -> Result<(), BrokerError> {
    let policy = admin.setting(name, "cleanup.policy")?;
    if policy.as_ref().is_some_and(|policy| !policy.contains("compact")) {
        warn!(
            topic = name,
            "the changelog is not compacted: it grows for ever, or its retention deletes what the table holds"
        );
    }
    for (setting, declared) in &table.topic_config {
        match admin.setting(name, setting)? {
            Some(found) if found != *declared => {
                warn!(topic = name, setting, found, declared, "the changelog differs from its spec: left as it is");
            }
            _ => {}
        }
    }
    Ok(())
}
