"""Breaks one rule of the executor after the other and shows that a test sees it.

    python3 tests/oracle/mutants.py [--only TEXT] [--by CHECK] [--skip COUNT]

Works on a copy in target/mutants, never on the tree itself. Each line names the rule, a text that stands
exactly once in the sources of compiler, executor and ir, what takes its place, and the check that must fail. Files may move;
`--check` only looks whether every text is still there once.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "target" / "mutants"

MUTANTS = [
    ("a filter keeps what is true", "Then::Keep if !machine.code.truth(&result)", "Then::Keep if machine.code.truth(&result)", "oracle"),
    ("a predicate that says no sends nothing", "Then::Unless(past) if !machine.code.truth(&result)", "Then::Unless(past) if machine.code.truth(&result)", "oracle"),
    ("channels feed their readers in the order of names", "for &entry in entries.iter().rev() {", "for &entry in entries.iter() {", "oracle"),
    ("topicSend without passThrough hands on nothing", "Instruction::Nothing => value = machine.code.none(),", "Instruction::Nothing => {}", "oracle"),
    ("a key that is None is a null key", "draft.key.as_ref().filter(|key| !machine.code.is_none(key))", "draft.key.as_ref()", "oracle"),
    ("a generator goes on behind its first value", "self.stack.push(Point::Values(steps));\n                self.stack.push(Point::Value { at, value, via });", "self.stack.push(Point::Value { at, value, via });", "oracle"),
    ("sinks run last of all", "self.deferred.push_back((at + 1, value, via));", "self.stack.push(Point::Value { at: at + 1, value, via });", "executor"),
    ("what a channel's selectors say is seen behind it", "via: behind.clone() });", "via: None });", "golden"),
    ("a failed event leaves no effects", "        scratch.clear();\n        scratch.give_back(&mut self.effects);", "        self.effects.keep(&mut scratch);", "oracle"),
    ("an event that does not decode fails with Decode", 'Fault::new("Decode", error.value(py).to_string())', 'Fault::new("ValueError", error.value(py).to_string())', "oracle"),
    ("an await that takes too long fails", "let ends = limit.map(|limit| self.shared.clock.now() + limit);", "let ends = limit.map(|limit| self.shared.clock.now() + limit * 1000);", "executor"),
    ("isolated partitions are tracks of their own", "if self.track.per_partition { partition } else { None }", "None::<i32>.and(partition)", "executor"),
    ("attempts count all tries", "if self.lanes[&id].tries + 1 < attempts =>", "if self.lanes[&id].tries < attempts =>", "oracle"),
    ("a back-off waits", "lane.held_until = Some(self.shared.clock.now() + wait);", "lane.held_until = Some(self.shared.clock.now());", "tested"),
    ("retry ends with what then says", "OnError::Retry { then, .. } => then,\n            OnError::Skip", "OnError::Retry { .. } => &OnError::Skip,\n            OnError::Skip", "oracle"),
    ("a dead letter keeps the event's headers", "let mut headers = event.headers.clone();", "let mut headers = Vec::new();", "oracle"),
    ("refused events of a batch fail alone", "Some((_, own)) => self.give_up_undecodable(id, event, own),", "Some(_) => self.give_up_event(id, event, failing.site, &failing.fault),", "oracle"),
    ("halt stops before the event", "OnError::Halt => self.halt(id, failing),", "OnError::Halt => self.give_up(id, failing),", "programs"),
    ("an operation's policy goes before its agent's", "policy(step.on_error.as_ref(), step.timeout_ms, &of_agent)", "policy(agent.on_error.as_ref().or(step.on_error.as_ref()), step.timeout_ms, &of_agent)", "oracle"),
    ("an operation's timeout counts", "own_timeout.map_or(above.limit, Duration::from_millis)", "own_timeout.map_or(above.limit, |_| above.limit)", "executor"),
    ("values are picked before they are sent", "let value = draft.value.as_ref().unwrap_or(value);\n            machine.code.encode(&target.value_codec, value,", "machine.code.encode(&target.value_codec, value,", "oracle"),
    ("a batch holds max values", "if open.count >= self.max || early", "if open.count > self.max || early", "oracle"),
    ("only values that decode count towards max", "open.count += u32::from(decodes);", "open.count += 1;", "tested"),
    ("a window is measured from its first event", "open.bytes += bytes;", "open.due = due;\n        open.bytes += bytes;", "tested"),
    ("a call into a loop is interrupted", "_ if age >= limit => Rang::Call,", "_ if age >= limit * 1000 => Rang::Call,", "executor"),
    ("a producer that begins late is waited for again", "let place = if outcome.is_some() { &mut self.thread } else { &mut self.unanswered };\n        *place = Some(thread);", "if outcome.is_some() {\n            self.thread = Some(thread);\n        }", "unit"),
    ("what is awaitable is awaited", "Kind::Awaitable => self.begin(py, &result, given, with, false),", "Kind::Awaitable => Called::Value(result.into()),", "oracle"),
    ("bytes pass by JSON in outputs", "Ok(bytes) => out.extend_from_slice(bytes.as_bytes()),", "Ok(_) => return Err(Fault::new(\"Encode\", \"bytes\")),", "oracle"),
    ("the last of a repeated header wins", "for (name, value) in self.headers.as_ref().unwrap_or(&self.event.headers) {", "for (name, value) in self.headers.as_ref().unwrap_or(&self.event.headers).iter().rev() {", "golden"),
    ("t.get gives what is given", "(None, Some(default)) => Ok(default.unbind()),\n            (None, None) if", "(None, Some(default)) if self.default.get().is_none() => Ok(default.unbind()),\n            (None, Some(_)) => self.missing(py, key),\n            (None, None) if", "oracle"),
    ("deleting a missing key is a KeyError", "None => Err(PyKeyError::new_err(key.clone().unbind())),\n            Some(_) => self.delete", "_ => self.delete", "oracle"),
    ("what belongs to the worker's thread is found there alone", "if THREAD.with(|thread| *thread) != self.thread {", "if THREAD.with(|thread| *thread) == u64::MAX {", "python"),
    ("a generator left half-way is closed within its event", "while let Some(point) = self.stack.pop() {", "while let Some(point) = self.stack.pop().filter(|_| false) {", "python"),
    ("background tasks run while the worker idles", "return any(not timer._cancelled for timer in timers)", "return False", "python"),
    ("a timer alone keeps the worker awake", "holds(files.bind(py)) <= 1 && timers() == 0", "holds(files.bind(py)) <= 1", "python"),
    ("plain functions see the running loop", "    finally:\n        asyncio._set_running_loop(loop)", "    finally:\n        pass", "python"),
    ("init runs on at the end", "for Life { agent, leave } in lives.iter().rev() {", "for Life { agent, leave } in lives[..0].iter().rev() {", "python"),
    ("a block's module can be found", "sys.modules[name] = made", "pass", "python"),
    ("a default selector is called once", "let default = selector.call0()?;", "let default = selector.clone();", "python"),
    ("an event that ended the process three times is not run", "if poison.is_empty() {", "if true {", "guard"),
    ("what blocks ends the process", "age >= limit + grace(limit)", "age >= limit * 1000", "guard"),
    ("a step of a coroutine is timed", "let outer = alarm.watch.enter(doing);", "let outer = alarm.watch.enter(&Doing { row: u32::MAX, ..*doing });", "guard"),
    ("a process that is told to end blames no event", "        watch.spare();", "        let _ = watch;", "guard"),
    ("a stall is told once", "if !seen.reported && held >= self.after {", "if held >= self.after {", "guard"),
    ("a block's namespace is its own", "    return made.__dict__", "    names.update(__name__=name)\n    return names", "golden"),
    ("an event sees the writes of events before it", "let laid = self.overlay.get(table, partition, key).or_else(", "let laid = self.overlay.get(table, partition, key).filter(|_| false).or_else(", "oracle"),
    # Awaits that overlap (`concurrency`).
    ("as many events are in flight as allowed", "self.flight.len() < in_flight.units_max", "self.flight.len() + 1 < in_flight.units_max", "overlap"),
    ("agents of one reader have the least concurrency", "self.written.into_iter().chain(other.written).min()", "self.written.into_iter().chain(other.written).max()", "golden"),
    ("an event that read what was written meanwhile runs again", "seen > self.forgotten && last.is_none_or(|last| last <= seen)", "seen > self.forgotten", "oracle"),
    ("iteration reads all keys", "None => Some(written.last),", "None => None,", "overlap"),
    ("a key that was read is remembered", "reads.note(table, partition, Some(key), self.versions.now());", "let _ = reads;", "oracle"),
    ("the first read of a key counts", ".or_insert(now);", ".and_modify(|seen| *seen = now).or_insert(now);", "unit"),
    ("what a run in vain raises does not count", "State::Ran { walk, result } if self.is_as_read(&walk) => {", "State::Ran { walk, result } if result.is_err() || self.is_as_read(&walk) => {", "overlap"),
    ("an event that is tried again keeps its place", "false => self.push_first(Flight::new(State::Waits(unit), Vain::default())),", "false => self.push_behind(Flight::new(State::Waits(unit), Vain::default())),", "overlap"),
    ("events in flight are known to the next process", "None => marks.flatten().collect(),", "None => Vec::new(),", "overlap"),
    ("an event that may have ended the process runs alone", "let waits = is_suspect && (", "let waits = false && (", "overlap"),
    # Code blocks (section 3).
    ("init's function is called", "if let Some(Some(function)) = inits.get(&id) {", "if let Some(Some(function)) = inits.get(&id).filter(|_| false) {", "tested"),
    ("an async init is awaited", "if inspect.isawaitable(result):", "if False:", "tested"),
    ("init's globals are there for every block", "let globals = block.init.and_then(|init| namespaces.get(&init));", "let globals = block.init.and_then(|init| namespaces.get(&init)).filter(|_| false);", "tested"),
    ("init has no event", "Ok(\"event\") => Ok(self.running(py)?.is_some()),", "Ok(\"event\") => Ok(true),", "tested"),
    ("an event's time is in seconds", "self.event.timestamp_ms as f64 / 1000.0", "self.event.timestamp_ms as f64", "tested"),
    ("message.headers keeps all", "let pairs = self.event.headers.iter().map(", "let pairs = self.event.headers.iter().skip(1).map(", "tested"),
    ("context's key is decoded", "codec::decode_plain(py, &self.codecs.0, self.event.key", "codec::decode_plain(py, &Codec::Raw, self.event.key", "tested"),
    ("send's key and value have serializers", 'value_serializer.unwrap_or("json")', 'value_serializer.and(None).unwrap_or("json")', "tested"),
    ("a coroutine sees its own event", "return running.get().map(|running| Some((*running).clone())).ok_or_else(|| elsewhere(what));", "let _ = running;", "tested"),
    ("tracebacks point into the YAML", "let before = line.saturating_sub(1);", "let before = line.min(1);", "programs"),
    ("what is printed bears the agent's name", 'map_or("kaspr", String::as_str)', 'filter(|_| false).map_or("kaspr", String::as_str)', "executor"),
    ("at most one event of a track is in flight", "self.track_is_busy(id) || self.in_flight.overlaps()", "self.in_flight.overlaps()", "golden"),
    ("readers of a common table are one track", "(self.track.group, if", "(self.reader.0, if", "golden"),
    # Operations (section 4).
    ("only generators fan out", "|| class == &raw mut ffi::PyAsyncGen_Type", "|| class == &raw mut ffi::PyAsyncGen_Type || class == &raw mut ffi::PyTuple_Type", "oracle"),
    ("async generators fan out", " || class == &raw mut ffi::PyAsyncGen_Type", "", "oracle"),
    ("topicSend with ack hands on where the record goes", 'metadata.set_item("offset", -1)', 'metadata.set_item("offset", 0)', "tested"),
    # Values of which a part is decoded.
    ("what is passed over is validated", "b't' => self.word(b\"true\").then_some(true),", "b't' => Some(self.word(b\"tru\") | self.word(b\"e\")),", "oracle"),
    ("a key that comes twice is decoded whole", "if !rest.is_new(key.clone(), expected) {", "if !rest.is_new(key.clone(), expected) && false {", "oracle"),
    ("text that CPython writes otherwise is decoded", "if is_as_written {\n            rest.keep", "if is_as_written || start > 0 {\n            rest.keep", "oracle"),
    ("fields that are set keep their places", "Piece::Decoded => drop(fields.write_next(out, &around)?),", "Piece::Decoded => {}", "oracle"),
    ("a part that a function returns keeps its rest", "if object.is(&given.object) { given.rest.clone() }", "if object.is(&given.object) { None }", "oracle"),
    ("what is passed over within an expected object is judged", "is_as_written &= self.pass(INNER_DEPTH_MAX)?;", "self.pass(INNER_DEPTH_MAX)?;", "oracle"),
    ("a run gives all of its events", "if run.events().is_empty() {", "if true {", "golden"),
    # Batches (section 5).
    ("a window ends after within", "filter(|(_, open)| open.due <= now)", "filter(|(_, open)| open.due < now.min(open.due))", "tested"),
    ("batches of one partition where they must be", "if self.scope == BatchScope::Mixed { 0 } else { partition }", "if self.scope == BatchScope::Mixed { 0 } else { 0 * partition }", "tested"),
    ("with retry batches are of one partition", "if retries(&policies.of_app().on_error) => BatchScope::Partition", "if retries(&policies.of_app().on_error) => BatchScope::Mixed", "tested"),
    ("the end of the input hands windows over", "let keys: Vec<_> = self.open.keys().copied().collect();", "let keys: Vec<_> = self.open.keys().copied().take(0).collect();", "oracle"),
    # Outputs (section 6).
    ("outputs go in list order", "for output in &agent.outputs {\n            let name", "for output in agent.outputs.iter().rev() {\n            let name", "tested"),
    ("a sink sees what its selector gives", "let of_draft = then == Then::Discard;", "let of_draft = false;", "executor"),
    ("a channel passes on what its selector gives", "drafted.unwrap_or_else(|| value.clone())", "drafted.filter(|_| false).unwrap_or_else(|| value.clone())", "oracle"),
    ("a truth is no partition", "let is_int = value.is_instance_of::<pyo3::types::PyInt>() && ", "let is_int = value.is_instance_of::<pyo3::types::PyInt>() || ", "oracle"),
    ("no partition chosen means the partitioner's", "            if value.is_none() {\n                return Ok(None);", "            if value.is_none() {\n                return Ok(Some(0));", "tested"),
    ("a partition that does not exist fails", "Some(partition) if (0..partitions).contains(&partition)", "Some(partition) if (0..=partitions).contains(&partition)", "tested"),
    ("records without a key take turns", "known.turn = known.turn.wrapping_add(1);", "known.turn = 1;", "tested"),
    ("no headers are no failure", "return Ok(Vec::new());", 'return Err(broken("None".to_owned()));', "oracle"),
    ("a record's time is the clock's", "let timestamp_ms = machine.stamp.wall_ms(machine.clock);", "let timestamp_ms = self.frame.unit.events()[0].timestamp_ms;", "tested"),
    ("a record that is too large fails", "if size <= limit {", "if size <= limit.max(size) {", "executor"),
    ("forwarded bytes are validated", "code.validate(&program.value_codec, event.value.as_deref()).map_err(of_value)?;", "", "golden"),
    ("forwarded bytes leave as they came", "forwards: output.forwards,", "forwards: false,", "golden"),
    ("keys are read by their serializer", "if program.key_codec != kaspr_ir::plan::Codec::Raw && event.key.is_some()", "if program.key_codec == kaspr_ir::plan::Codec::Raw && event.key.is_some()", "tested"),
    ("raw None is a tombstone", "if value.is_none() {\n        return Ok(None);", 'if value.is_none() {\n        return Ok(Some(b""));', "tested"),
    # Failures (section 7).
    ("whose policy is nobody's is the app's", "on_error: defaults.on_error.with_topic(", "on_error: OnError::Skip.with_topic(", "tested"),
    ("letters go to the app's topic where none is named", "topic: topic.as_ref().or(default).cloned()", "topic: topic.clone()", "tested"),
    ("back-off grows", "backoff.factor.powi(i32::try_from(tries).unwrap_or(i32::MAX) - 1)", "backoff.factor.powi(0)", "tested"),
    ("back-off has a bound", "grown.min(backoff.max_ms as f64)", "grown.max(backoff.max_ms as f64 * 0.0)", "tested"),
    ("tries are counted anew for the next event", 'expect("its unit ran").tries = 0;', 'expect("its unit ran").tries += 0;', "oracle"),
    ("a dead letter keeps the event's key", "let (key, value) = (event.key.as_deref(), event.value.as_deref());", "let (key, value) = (None, event.value.as_deref());", "oracle"),
    ("a dead letter tells the tries", "self.lanes.get(&id).map_or(0, |lane| lane.tries) + 1;", "self.lanes.get(&id).map_or(0, |lane| lane.tries);", "oracle"),
    ("a letter that is too large goes without its traceback", 'name != "kaspr.dlq.traceback"', 'name != "none"', "executor"),
    ("a failure's message is cut", "cut(&fault.message, MESSAGE_CHARACTERS_MAX).to_owned()", "fault.message.clone()", "executor"),
    ("a failure names the line in the YAML", "fault.at.clone().unwrap_or_else(|| site.at.clone())", "site.at.clone()", "programs"),
    ("a letter's message is cut", "cut_bytes(&fault.message, LETTER_MESSAGE_MAX).to_owned()", "fault.message.clone()", "executor"),
    # Numbers of the summary.
    ("an event that is tried again counts once", "let Failing { unit, site, fault, .. } = failing;\n", "let Failing { unit, site, fault, mut passed, .. } = failing;\n        self.tally.append(&mut passed);\n", "numbers"),
    ("records of an event that fails are not counted", "self.places[place].0.records = 0;", "self.places[place].0.records += 0;", "numbers"),
    ("dead letters are not records out", "effects.outgoing_count() as u64 - dead_letters", "effects.outgoing_count() as u64", "numbers"),
    ("the event that halts is counted", "self.dataflow.count_halted();", "", "numbers"),
    ("all events of a batch that halts are counted", "failing.unit.events().len() as u64 - undecodable", "1", "numbers"),
    ("records of send() are counted where it is called", "scratch.count_sent(running.row);", "", "numbers"),
    ("tries are counted", "step.retried += 1;", "step.retried += 0;", "numbers"),
    ("awaits are counted", ".awaited += 1;", ".awaited += 0;", "numbers"),
    # A start, and its command line.
    ("a start looks at what it will write", "    check_outputs(arguments)?;\n", "", "starts"),
    ("a start looks at the state dir", "    kept.look()?;\n    let bar", "    let bar", "starts"),
    ("inputs are looked at before user code runs", "    arguments.input.iter().try_for_each(Input::look).map_err(Stop::refused)?;\n", "", "starts"),
    ("a flag of another command says so", "error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));", "drop(tip);", "programs"),
    ("a local run without more input sleeps", "        let mut wait = wait.min(self.longest_sleep(now));", "        let mut wait = wait.min(self.longest_sleep(now)).min(Duration::ZERO);", "programs"),
    ("a very long traceback is shortened", "    if count <= FRAMES_MAX:\n", "    if count:\n", "python"),
    # Tables (section 8).
    ("a global table is one for all partitions", "let partition = if self.global { Some(0) } else { running.frame.partition };", "let partition = running.frame.partition;", "tested"),
    ("a table's partition is the event's", "let partition = if self.global { Some(0) } else { running.frame.partition };", "let partition = Some(0).or(running.frame.partition);", "tested"),
    ("a default that is no factory is copied", 'Ok(py.import("copy")?.getattr("deepcopy")?.call1((default,))?.unbind())', "Ok(default.clone_ref(py))", "tested"),
    ("a default that is a factory is called", "if default.bind(py).is_callable() {", "if default.bind(py).is_none() {", "tested"),
    ("setdefault stores", "self.set(py, key, default.bind(py))?;", "", "tested"),
    ("pop deletes", "self.delete(py, key)?;\n                Ok(value)", "Ok(value)", "tested"),
    ("a prefix scan looks at the beginning", ".starts_with(prefix)", ".contains(prefix)", "tested"),
    ("tuples come back as tuples", "Ok(PyTuple::new(key.py(), parts)?.into_any())", "Ok(PyList::new(key.py(), parts)?.into_any())", "tested"),
    ("what does not encode is a TypeError where it is written", "PyTypeError::new_err(fault.message.clone())", "PyRuntimeError::new_err(fault.message.clone())", "tested"),
    ("bytes do not pass by JSON in tables", "if *codec != Codec::Json {", "if *codec != Codec::Pickle {", "tested"),
    ("an event sees its own writes", "if let Some(written) = scratch.written(table, partition, key) {", "if let Some(written) = scratch.written(table, partition, key).filter(|_| false) {", "oracle"),
    ("an iteration sees the event's own writes", "scratch.writes().iter().filter(|write| write.table == table && write.partition == partition)", "scratch.writes().iter().filter(|_| false)", "oracle"),
    ("the last write of a key wins", "self.room.writes[at] = write;\n", "", "oracle"),
    ("a commit moves writes to the store", "true => self.store.apply(writes, &positions_pass),", "true => self.store.apply(&writes[..0], &positions_pass),", "tested"),
    # Findings of kasprc.
    ("whole numbers have bounds", "(Ok(number), _) if (min..=max).contains(&number) => Ok(number),", "(Ok(number), _) => Ok(number),", "compiler"),
    ("a name is one that Kubernetes takes", "name.len() <= NAME_MAX && name.split('.').all(is_label)", "name.len() <= NAME_MAX", "errors"),
    ("a label is one that Kubernetes takes", "} else if !is_legal {", "} else if false && !is_legal {", "reported"),
    ("an unknown setting is told", "None => self.unknown_setting(name, value),", "None => {}", "errors"),
    ("a setting that is not built is refused", "Some((_, without)) if *without == value.value => return,", "Some(_) => return,", "compiler"),
    ("names that Kafka cannot keep are refused", "Kind::Name if is_topic_name(&value.value) => {}", "Kind::Name if true => {}", "compiler"),
    ("an empty value of a setting is not judged", "Some((_, kind)) if !value.value.is_empty() =>", "Some((_, kind)) =>", "compiler"),
    ("a policy's field without effect is told", "self.warn_without_effect(policy, &action.value, on_error);", "", "errors"),
    ("fields of dead letters need dead letters", "if !matches!(policy.last_resort(), OnError::DeadLetter { .. }) {", "if false {", "reported"),
    ("the topic of dead letters is declared", "self.note_topic(&topic.value, &creation);", "self.note_topic(&topic.value, &Creation::default());", "golden"),
    ("pickle is refused", "Some(text) if matches!(codec, Codec::Pickle) => {", "Some(text) if false => {", "errors"),
    ("windows are refused", "table.window.as_ref().filter(|_| window.is_some())", "table.window.as_ref().filter(|_| false && window.is_some())", "compiler"),
    ("serializers that are not built are refused", "if !matches!(codec, Codec::Raw | Codec::Json | Codec::Binary) {\n            let message", "if false {\n            let message", "compiler"),
    ("a channel that nothing reads is told", "if self.is_partial || !self.channels[channel.index()].readers.is_empty() {", "if true {", "errors"),
    ("a function without a value is told", "if !found.gives_value && found.shape != Shape::Unknown {", "if false {", "errors"),
    ("what gives a value is not told of", "if !found.gives_value && found.shape != Shape::Unknown {", "if found.shape != Shape::Unknown {", "quiet"),
    ("a coroutine that nothing awaits is told", "let is_coroutine = loose.is_dropped && loose.names.len() == 1", "let is_coroutine = false && loose.names.len() == 1", "errors"),
    ("a blocking call is told", "if let Some(function) = loose.blocks(&meant.imports) {", "if let Some(function) = loose.blocks(&meant.imports).filter(|_| false) {", "errors"),
    ("a change that is never assigned back is told", "if let Some(lost) = &used.lost {", "if let Some(lost) = used.lost.as_ref().filter(|_| false) {", "errors"),
    ("a change that is assigned back is none", ".min_by_key(|at| at.start).filter(|_| !is_kept);", ".min_by_key(|at| at.start);", "errors"),
    ("an attribute that tables do not have is told", "for (name, place) in &used.unknown {", "for (name, place) in used.unknown.iter().take(0) {", "errors"),
    ("a batch asked like a dict is told", "if let Some(place) = batch.and_then(|batch| batch.as_dict.as_ref()) {", "if let Some(place) = batch.and_then(|batch| batch.as_dict.as_ref()).filter(|_| false) {", "errors"),
    ("a second name for a table's value is one", "self.names.insert(name.to_owned());\n            self.second.insert(name.to_owned());", "", "reported"),
    ("a loop gives a table's values names", "self.of_loops.insert(name.to_owned());", "", "reported"),
    ("an empty block is told once", "let lacks_block = self.sink.has_empty_block();", "let lacks_block = false;", "reported"),
    ("messages are one line", "if !message.contains(char::is_control) {", "if true {", "reported"),
    # Users' tests.
    ("a part of a value is compared by its names alone", "let others = got.keys().filter(|_| !measure.is_part);", "let others = got.keys();", "rehearsed"),
    ("a whole value is compared by all names", "let others = got.keys().filter(|_| !measure.is_part);", "let others = got.keys().take(0);", "rehearsed"),
    ("hints are escaped", "self.hints.push(escaped(text.into()));", "self.hints.push(text.into());", "compiler"),
    ("a link that leads back is not followed", "    if leads_back(folder, above) {\n        return Ok(());\n    }\n    above.push(folder.to_owned());\n    for entry in std::fs::read_dir(folder).map_err", "    above.push(folder.to_owned());\n    for entry in std::fs::read_dir(folder).map_err", "compiler"),
    ("numbers may differ by so much", "(one.as_f64()? - other.as_f64()?).abs() <= approx", "(one.as_f64()? - other.as_f64()?).abs() < 0.0 * approx", "rehearsed"),
    ("numbers are the same as they are written", "is_equal || self.approx.and_then(near).unwrap_or(false)", "is_equal || near(self.approx.unwrap_or(1e-9)).unwrap_or(false)", "rehearsed"),
    ("a record's own tolerance goes first", "approx: own.or(measure.approx)", "approx: measure.approx.or(own)", "rehearsed"),
    ("timers run on the clock of the test", "simulate(py, &runtime, &rehearsal.clock)?;", "", "rehearsed"),
    ("the clock stops where a timer is due", "[self.worker.next_deadline(), timer].into_iter().flatten().min()", "[self.worker.next_deadline(), timer.filter(|_| false)].into_iter().flatten().min()", "rehearsed"),
    ("the clock waits for threads", "pending.due.is_some() && !pending.in_threads &&", "pending.due.is_some() &&", "rehearsed"),
    ("the clock waits for files", "(!pending.has_files || silent > SILENT_MAX)", "true", "rehearsed"),
    ("init waits for timers at once", "loop.skipped += time.monotonic() - began if found else timeout", "pass", "rehearsed"),
    ("a mock stands before init is called", "mocks.put(&block.name(), &namespace)", "Mocks::new(self.py, &BTreeMap::new()).and_then(|none| none.put(&block.name(), &namespace))", "rehearsed"),
    ("a mock gives copies", 'return copy.deepcopy(outcome["value"])', 'return outcome["value"]', "rehearsed"),
    ("a sequence ends", "if self.calls > len(self.sequence):", "if False:", "rehearsed"),
    ("a mock refuses what its function would", "signature.bind(*args, **keywords)", "pass", "rehearsed"),
    ("a mock of one block is that block's", 'if mock.name in names and mock.block in ("", block):', "if mock.name in names:", "rehearsed"),
    ("variables of a test are made what they were", 'module.call_method1("restore_variables", (before,))?;', "", "rehearsed"),
    ("a function that no block has is told", "if !names.contains(name) {", "if false {", "rehearsed"),
    ("settings are no variables of a test", "if is_setting(name) {", "if name.is_empty() {", "rehearsed"),
    # Variables and topics at the start.
    ("variables that are no settings are refused", "Some(_) if is_unknown(name, value) => &mut self.unknown,", "Some(_) if false => &mut self.unknown,", "programs"),
    ("what Kubernetes sets beside a service is not told", "!is_known && !is_of_a_service(name, value)", "!is_known", "programs"),
]

# A mutant that waits for ever is caught by its check taking so much longer than without it.
PATIENCE = 4
CHECK_SECONDS_MIN = 60

# The check that must fail: a command in the copy.
CHECKS = {
    "oracle": [sys.executable, "tests/oracle/oracle.py", "--exec", "target/debug/kaspr-exec", "--seeds", "0:400", "--quick"],
    "tested": ["target/debug/kaspr-exec", "test", "specs"],
    # Unit tests, for what a pipeline shows too rarely.
    "unit": ["cargo", "test", "--quiet", "-p", "kaspr-exec", "--lib", "--", "tables::", "aside::"],
    "golden": ["golden"],
    "executor": ["executor"],
    "programs": ["programs"],
    "guard": ["guard"],
    "overlap": ["overlap"],
    "python": ["python"],
    "numbers": ["numbers"],
    "compiler": ["compiler"],
    "errors": ["errors"],
    "quiet": ["quiet"],
    "rehearsed": ["rehearsed"],
    "reported": ["reported"],
    "starts": ["starts"],
}


def run(command, **more):
    return subprocess.run(command, cwd=COPY, capture_output=True, text=True, **more)


def copy():
    """Brings the copy to what the tree is."""
    COPY.mkdir(parents=True, exist_ok=True)
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for path in COPY.rglob("*.rs"):
        name = str(path.relative_to(COPY))
        if not name.startswith("target/") and name not in names:
            path.unlink()
    for name in names:
        source, target = ROOT / name, COPY / name
        if source.is_file() and (not target.exists() or source.read_bytes() != target.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            shutil.copymode(source, target)


def prepare():
    """The copy as it is, built, with the test programs that the checks run."""
    copy()
    build(["--workspace", "--bins"])
    built = run(["cargo", "test", "--no-run", "-p", "kaspr-tests", "--test", "golden", "--test", "executor", "--test", "programs", "--test", "guard", "--test", "overlap", "--test", "python", "--test", "numbers", "--test", "starts", "--test", "compiler", "--test", "errors", "--test", "quiet", "--test", "rehearsed", "--test", "reported"], env=environment())
    assert built.returncode == 0, built.stderr
    for line in built.stderr.splitlines():
        if "Executable" in line:
            path = line[line.index("(") + 1 : line.rindex(")")]
            CHECKS[pathlib.Path(path).name.rsplit("-", 1)[0]] = [path, "--skip", "on_kafka"]


def place(tree, rule, old):
    """The one file of the sources in which a mutant's text stands, once."""
    paths = [path for crate in ("compiler", "executor", "ir") for path in sorted((tree / crate / "src").rglob("*"))]
    sources = [path for path in paths if path.suffix in (".rs", ".py")]
    found = {path: count for path in sources if (count := path.read_text().count(old))}
    where = ", ".join(f"{count} in {path.relative_to(tree)}" for path, count in found.items()) or "nowhere"
    assert list(found.values()) == [1], f"{rule}: the text must stand once, but stands {where}: {old}"
    return next(iter(found))


def environment():
    return {**{name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}, "RUST_BACKTRACE": "0"}


def build(what):
    built = run(["cargo", "build", "--quiet", *what], env=environment())
    return built.returncode == 0 or print(built.stderr)


def rebuilt(path, check):
    """The programs with a mutant, and the test program that must see it where the compiler is a part of it."""
    if "compiler" not in path.relative_to(COPY).parts:
        return build(["-p", "kaspr-exec"])
    if not build(["-p", "kaspr-exec", "-p", "kasprc"]):
        return False
    return check in ("oracle", "tested") or run(["cargo", "test", "--no-run", "-p", "kaspr-tests", "--test", check], env=environment()).returncode == 0


def passes(check, seconds_max):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(CHECKS[check], cwd=COPY, env=environment(), start_new_session=True, **quiet)
    try:
        return running.wait(seconds_max) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        # What the check has started ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose rule contains this")
    parser.add_argument("--skip", type=int, default=0, help="the first so many")
    parser.add_argument("--check", action="store_true", help="only look whether every text has its place")
    parser.add_argument("--by", default="", help="mutants that this check must see")
    arguments = parser.parse_args()
    for rule, old, _, _ in MUTANTS:
        place(ROOT, rule, old)
    if arguments.check:
        return print(f"{len(MUTANTS)} mutants, each has its place")
    prepare()
    chosen = [mutant for mutant in MUTANTS[arguments.skip :] if arguments.only in mutant[0] and arguments.by in mutant[3]]
    limits = {}
    for check in sorted({mutant[3] for mutant in chosen}):
        start = time.monotonic()
        assert passes(check, None), f"{check} fails without a mutant"
        limits[check] = CHECK_SECONDS_MIN + PATIENCE * (time.monotonic() - start)
    missed = 0
    for rule, old, new, check in chosen:
        path = place(COPY, rule, old)
        text = path.read_text()
        path.write_text(text.replace(old, new))
        # One that is no Rust any more says nothing about the tests.
        builds = rebuilt(path, check)
        caught = builds and not passes(check, limits[check])
        path.write_text(text)
        missed += not caught
        print(f"{'caught' if caught else 'MISSED' if builds else 'BROKEN'}  by {check:8}  {rule}", flush=True)
    print(f"{len(chosen)} mutants, {missed} missed")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
