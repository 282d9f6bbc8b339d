//! Work on all cores of the machine, with results in the order of the items.

use std::thread::Builder;

/// Stack of a thread: that of a main thread, on which the same work runs where there is little of it.
const STACK: usize = 8 << 20;

/// Works on many items in parts, one part a core. `work` is given the number of a part's first item, and the part; it
/// must give the same whatever the parts are. Fewer than `least` items for each core are worked on by the caller's
/// thread alone: they are done before another thread has started.
///
/// # Panics
/// A panic of `work` goes on in the caller.
pub fn on_all<T: Sync, R: Send>(items: &[T], least: usize, work: impl Fn(usize, &[T]) -> Vec<R> + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(items.len() / least);
    if threads < 2 {
        return work(0, items);
    }
    let size = items.len().div_ceil(threads);
    let parts = || (0..).step_by(size).zip(items.chunks(size));
    std::thread::scope(|scope| {
        let work = &work;
        let start = |(first, part)| Builder::new().stack_size(STACK).spawn_scoped(scope, move || work(first, part));
        let running: Vec<_> = parts().map(start).collect();
        let join = |(thread, (first, part)): (std::io::Result<std::thread::ScopedJoinHandle<'_, _>>, _)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // The machine gives no more threads.
            Err(_) => work(first, part),
        };
        running.into_iter().zip(parts()).flat_map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, 7, 8, 1000, 1001] {
            let items: Vec<usize> = (0..count).collect();
            let numbered = on_all(&items, 4, |first, part| (first..).zip(part.iter().copied()).collect());
            assert_eq!(numbered, (0..count).map(|number| (number, number)).collect::<Vec<_>>());
        }
    }
}
