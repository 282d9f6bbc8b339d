use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::clock::SimulatedClock;

const TABLE: TableId = TableId(0);

fn write(partition: i32, key: &str, value: Option<&str>) -> TableWrite {
    let bytes = |text: &str| Kept::from(text.as_bytes());
    TableWrite { table: TABLE, partition, key: bytes(key), value: value.map(bytes) }
}

fn position(partition: i32, offset: i64) -> ChangelogPosition {
    ChangelogPosition { table: TABLE, partition, offset }
}

fn durable(folder: &Path) -> DurableStore {
    DurableStore::open(folder, 0, &["counts"], Rc::new(SimulatedClock::default())).expect("it opens")
}

fn both(test: impl Fn(&mut dyn Store)) {
    let folder = tempfile::tempdir().expect("a folder");
    test(&mut MemoryStore::default());
    test(&mut durable(folder.path()));
}

fn keys(store: &dyn Store, partition: i32) -> Vec<String> {
    let pairs = store.pairs(TABLE, partition).expect("it reads");
    pairs.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).expect("text")).collect()
}

#[test]
fn writes_of_a_commit_count_in_order() {
    both(|store| {
        let (first, second) =
            ([write(0, "a", Some("1")), write(0, "b", Some("1"))], [write(0, "a", None), write(0, "b", Some("2"))]);
        store.apply(&[&first, &second], &[position(0, 7)]).expect("it writes");
        assert_eq!(store.get(TABLE, 0, b"a"), Ok(None));
        assert_eq!(store.get(TABLE, 0, b"b"), Ok(Some("2".into())));
        let followed = store.followed(TABLE, 0).expect("it reads").expect("it knows");
        assert_eq!(followed.offset, 7);
    });
}

#[test]
fn partitions_are_kept_apart() {
    both(|store| {
        let writes =
            [write(0, "a", Some("1")), write(256, "a", Some("2")), write(256, "b", Some("2")), write(3, "", Some(""))];
        store.apply(&[&writes], &[position(256, 3)]).expect("it writes");
        assert_eq!(store.partitions(TABLE), [0, 3, 256]);
        assert_eq!(keys(store, 256), ["a", "b"]);
        assert_eq!(store.get(TABLE, 3, b""), Ok(Some(Kept::from(&b""[..]))));
        store.clear(TABLE, 256).expect("it clears");
        assert_eq!((store.partitions(TABLE), store.followed(TABLE, 256)), (vec![0, 3], Ok(None)));
        assert_eq!(keys(store, 0), ["a"]);
    });
}

#[test]
fn keys_of_a_partition_are_counted() {
    both(|store| {
        // More than a walk counts at once.
        let all: Vec<TableWrite> = (0..5_000).map(|n| write(3, &n.to_string(), Some("x"))).collect();
        store.apply(&[&all, &[write(4, "a", Some("1"))]], &[]).expect("it writes");
        let wait_for = |store: &dyn Store, partition, keys| {
            while store.keys(TABLE, partition) != Some(keys) {
                std::thread::yield_now();
            }
        };
        wait_for(store, 3, 5_000);
        wait_for(store, 4, 1);
        wait_for(store, 5, 0);
        store
            .apply(&[&[write(3, "0", None), write(3, "1", Some("y")), write(3, "z", Some("y"))]], &[])
            .expect("it writes");
        store.apply(&[&[write(3, "y", Some("y"))]], &[]).expect("it writes");
        wait_for(store, 3, 5_001);
        store.clear(TABLE, 3).expect("it clears");
        wait_for(store, 3, 0);
        store.renew().expect("it is opened again");
        wait_for(store, 4, 0);
    });
}

#[test]
fn a_disk_keeps_what_memory_lets_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = durable(folder.path());
    store.follow(TABLE, 0, "topic-1");
    store.apply(&[&[write(0, "a", Some("1"))]], &[position(0, 2)]).expect("it writes");
    store.release(TABLE, 0);
    drop(store);
    let store = durable(folder.path());
    assert_eq!(store.get(TABLE, 0, b"a"), Ok(Some("1".into())));
    let followed = Followed { offset: 2, seen_ms: 0, topic: "topic-1".to_owned() };
    assert_eq!(store.followed(TABLE, 0), Ok(Some(followed)));
}

#[test]
fn tables_are_known_by_name_whatever_the_plan_says_beside_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = durable(folder.path());
    store.apply(&[&[write(0, "a", Some("1"))]], &[]).expect("it writes");
    drop(store);
    let clock = Rc::new(SimulatedClock::default());
    let store = DurableStore::open(folder.path(), 0, &["another", "counts"], clock).expect("it opens");
    assert_eq!(store.get(TableId(0), 0, b"a"), Ok(None));
    assert_eq!(store.get(TableId(1), 0, b"a"), Ok(Some("1".into())));
}

#[test]
fn two_processes_never_share_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let _store = durable(folder.path());
    let clock = Rc::new(SimulatedClock::default());
    let second = DurableStore::open(folder.path(), 0, &["counts"], clock.clone());
    assert!(matches!(second, Err(OpenError::Taken(_))));
    assert!(DurableStore::open(folder.path(), 1, &["counts"], clock).is_ok(), "another worker has its own");
}

#[test]
fn what_is_seen_again_grows_younger() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = SimulatedClock::default();
    let mut store = DurableStore::open(folder.path(), 0, &["counts"], Rc::new(clock.clone())).expect("it opens");
    store.apply(&[], &[position(0, 2)]).expect("it writes");
    clock.advance(Duration::from_secs(5));
    store.touch(TABLE, 0).expect("it writes");
    assert_eq!(
        store.followed(TABLE, 0).expect("it reads").map(|followed| (followed.offset, followed.seen_ms)),
        Some((2, 5000))
    );
}

#[test]
fn what_is_discarded_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = durable(folder.path());
    store.apply(&[&[write(0, "a", Some("1"))]], &[position(0, 2)]).expect("it writes");
    store.discard();
    assert!(store.get(TABLE, 0, b"a").is_err(), "it is not silently empty");
    drop(store);
    assert_eq!(durable(folder.path()).followed(TABLE, 0), Ok(None));
}

/// The store opens whatever a disk does to its files: with everything committed, with the commits up to some
/// moment, or empty.
#[test]
fn a_damaged_store_holds_commits_up_to_a_moment_or_nothing() {
    let whole = tempfile::tempdir().expect("a folder");
    let mut store = durable(whole.path());
    for n in 0..50 {
        let text = n.to_string();
        store
            .apply(&[&[write(0, "n", Some(&text)), write(0, &text, Some("x"))]], &[position(0, n)])
            .expect("it writes");
    }
    drop(store);
    let mut damaged = 0;
    for file in files(&whole.path().join("tables.0")) {
        for damage in [Damage::Cut, Damage::Garble, Damage::Remove] {
            let copy = tempfile::tempdir().expect("a folder");
            for other in files(&whole.path().join("tables.0")) {
                let name = other.strip_prefix(whole.path()).expect("it is inside");
                std::fs::create_dir_all(copy.path().join(name).parent().expect("a folder")).expect("made");
                std::fs::copy(&other, copy.path().join(name)).expect("copied");
            }
            harm(&copy.path().join(file.strip_prefix(whole.path()).expect("it is inside")), damage);
            let store = durable(copy.path());
            // A store with damaged blocks reports that when it is read.
            let (Ok(followed), Ok(pairs)) = (store.followed(TABLE, 0), store.pairs(TABLE, 0)) else { continue };
            let offset = followed.map_or(-1, |followed| followed.offset);
            let n = store.get(TABLE, 0, b"n").expect("it reads").map(|n| String::from_utf8_lossy(&n).into_owned());
            assert_eq!(n, (offset >= 0).then(|| offset.to_string()), "{file:?} {damage:?}");
            assert_eq!(pairs.len(), if offset < 0 { 0 } else { usize::try_from(offset + 2).expect("few") });
            damaged += usize::from(offset < 49);
        }
    }
    assert!(damaged > 0, "some damage was seen");
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Cut,
    Garble,
    Remove,
}

fn harm(file: &Path, damage: Damage) {
    let mut bytes = std::fs::read(file).expect("it reads");
    let middle = bytes.len() / 2;
    match damage {
        Damage::Cut => bytes.truncate(middle),
        Damage::Garble => bytes.iter_mut().skip(middle).take(20).for_each(|byte| *byte ^= 0x55),
        Damage::Remove => return std::fs::remove_file(file).expect("it is removed"),
    }
    std::fs::write(file, bytes).expect("it is written");
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
