//! How fast the comparator is, without sockets: pairs of frames made before, and beside it the cost of touching both payloads once.
//!
//! ```sh
//! cargo bench -p colo-benches --bench compare
//! ```

#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use bytes::BytesMut;
use colo_benches::CpuTime;
use colo_core::compare::{Comparator, CompareConfig, Release};
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::net::testing::{Tcp, udp};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Pairs of one round, at least.
const PAIRS: usize = 1000;
/// Pairs under way: the primary's frames come in such batches, then the secondary's.
const BATCH: usize = 64;
/// Bytes of a TCP segment's headers.
const HEADERS: usize = 54;

/// A comparator whose secondary runs.
fn running() -> (Comparator, Instant) {
    let (mut comparator, now) = (Comparator::new(CompareConfig::default()), Instant::now());
    comparator.begin_epoch(Epoch::FIRST);
    comparator.secondary_running(now);
    (comparator, now)
}

/// One machine's frames, packed one after the other as a socket's buffer has them.
fn packed(frames: &[Frame]) -> Vec<Frame> {
    let mut buffer = BytesMut::new();
    frames.iter().for_each(|frame| buffer.extend_from_slice(frame));
    frames.iter().map(|frame| Frame::from(buffer.split_to(frame.len()).freeze())).collect()
}

/// The next segments of every flow in turn.
fn segments(payload: usize, flows: usize, round: usize) -> Vec<Frame> {
    let payload = vec![0x5A; payload];
    let segment = |index: usize| {
        let (flow, turn) = (index % flows, round * PAIRS.max(flows) / flows + index / flows);
        let tcp = Tcp::new(80, 1000 + flow as u16).seq((turn * payload.len()) as u32).ack(1);
        tcp.payload(&payload).frame()
    };
    (0..PAIRS.max(flows)).map(segment).collect()
}

fn datagrams(payload: usize, flows: usize) -> Vec<Frame> {
    (0..PAIRS).map(|index| udp(53, 1000 + (index % flows) as u16, &vec![0x5A; payload])).collect()
}

fn bench(group: &mut BenchmarkGroup<'_, CpuTime>, name: &str, mut frames: impl FnMut(usize) -> Vec<Frame>) {
    let (mut comparator, now) = running();
    let mut round = 0;
    let mut number = 0;
    group.throughput(Throughput::Elements(frames(0).len() as u64));
    group.bench_function(name, |bencher| {
        let setup = || {
            round += 1;
            let frames = frames(round);
            (packed(&frames), packed(&frames), Vec::with_capacity(frames.len()))
        };
        let compare = |(ours, theirs, mut left): (Vec<Frame>, Vec<Frame>, Vec<Release>)| {
            let pairs = ours.len();
            let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
            while ours.len() > 0 {
                for frame in ours.by_ref().take(BATCH) {
                    comparator.handle_primary(0, frame, now);
                }
                for frame in theirs.by_ref().take(BATCH) {
                    comparator.handle_secondary(0, number, frame, now);
                    number += 1;
                }
                left.extend(std::iter::from_fn(|| comparator.poll_release()));
                while comparator.poll_consumed().is_some() {}
            }
            assert_eq!(left.len(), pairs);
            left
        };
        bencher.iter_batched(setup, compare, BatchSize::PerIteration);
    });
}

fn pairs(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("pairs");
    group.measurement_time(Duration::from_secs(3)).sample_size(40);
    group.warm_up_time(Duration::from_millis(500));
    for bytes in [64, 512, 1448] {
        let payload = if bytes == 64 { bytes - HEADERS } else { bytes };
        for flows in [1, 100, 10_000] {
            bench(&mut group, &format!("TCP {bytes} B, {flows} flows"), |round| segments(payload, flows, round));
        }
        group.throughput(Throughput::Elements(PAIRS as u64));
        group.bench_function(format!("memcmp {bytes} B"), |bencher| {
            let setup = || {
                let frames = segments(payload, 1, 0);
                (packed(&frames), packed(&frames))
            };
            let touch = |(ours, theirs): (Vec<Frame>, Vec<Frame>)| {
                let equal = |(a, b): &(&Frame, &Frame)| black_box(&a[HEADERS..]) == black_box(&b[HEADERS..]);
                assert_eq!(ours.iter().zip(&theirs).filter(equal).count(), PAIRS);
                (ours, theirs)
            };
            bencher.iter_batched(setup, touch, BatchSize::PerIteration);
        });
    }
    bench(&mut group, "UDP 512 B, 100 flows", |_| datagrams(512, 100));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = pairs
}
criterion_main!(benches);
