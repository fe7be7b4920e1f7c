//! What rules take out, and what a divergence has with it.

use super::*;
use crate::net::testing::udp;

#[test]
fn rules_hold_for_their_flows() {
    let rules = "bypass udp from :1\nignore udp from :2\nmask udp from :3 bytes 4..6\nignore tcp to :4000\nmask tcp to :4001 after \"Date: \" until \"\\n\"";
    let config = CompareConfig { rules: rules.parse().unwrap(), ..CompareConfig::default() };
    let mut bench = Bench::with(config.clone());
    bench.comparator.begin_epoch(Epoch(2));
    assert_eq!(bench.primary(&udp(1, 9, b"at once")), [udp(1, 9, b"at once")], "even while nothing else leaves");
    bench.comparator.secondary_running(bench.now);
    bench.secondary(&udp(1, 9, b"no matter"));
    assert_eq!(bench.consumed(), [0]);
    assert_eq!(bench.primary(&udp(2, 9, b"10:15")), NOTHING);
    assert_eq!(bench.secondary(&udp(2, 9, b"different")), [udp(2, 9, b"10:15")]);
    bench.primary(&udp(3, 9, b"now:15."));
    assert_eq!(bench.secondary(&udp(3, 9, b"now:16.")), [udp(3, 9, b"now:15.")]);
    assert_eq!((bench.consumed(), bench.reason()), (vec![1, 2], None));
    bench.primary(&udp(3, 9, b"now:15."));
    bench.secondary(&udp(3, 9, b"now:15!"));
    assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: 48 }));

    let mut bench = Bench::with(config.clone());
    bench.primary(&data(1001, b"10:15, 10:16"));
    assert_eq!(bench.secondary(&data(1001, b"10:17, ")), NOTHING);
    assert_eq!(bench.secondary(&data(1004, b"contradicts")), [data(1001, b"10:15, 10:16")]);
    assert_eq!((bench.consumed(), bench.reason()), (vec![0], None), "the other goes on behind what has left");

    let mut bench = Bench::with(config);
    let http = |clock: &str, body: &str| format!("HTTP/1.1 200 OK\r\nDate: {clock}\r\n\r\n{body}");
    let to = |seq: u32, text: &str| Tcp::new(80, 4001).seq(seq).ack(500).payload(text.as_bytes()).frame();
    let (ours, theirs) = (http("10:15", "hello"), http("11:26", "hello"));
    bench.primary(&to(1001, &ours));
    bench.secondary(&to(1001, &theirs[..19]));
    assert_eq!(bench.secondary(&to(1020, &theirs[19..])), [to(1001, &ours)]);
    let next = 1001 + ours.len() as u32;
    bench.primary(&to(next, &http("10:16", "hello")));
    bench.secondary(&to(next, &http("10:17", "jello")));
    let first_of_body = next + ours.len() as u32 - 5;
    assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: first_of_body.into() }));
}

/// What differed is handed out with the reason, on request.
#[test]
fn a_divergence_has_its_evidence() {
    let config = CompareConfig { keep_evidence: true, ..CompareConfig::default() };
    let evidence = |bench: &mut Bench| {
        let evidence = bench.comparator.poll_divergence().unwrap().evidence.unwrap();
        (evidence.primary, evidence.secondary)
    };
    let mut bench = Bench::with(config.clone());
    bench.primary(&udp(1, 2, b"10:15"));
    bench.secondary(&udp(1, 2, b"10:16"));
    assert_eq!(evidence(&mut bench), (vec![udp(1, 2, b"10:15")], vec![udp(1, 2, b"10:16")]));
    bench.checkpoint();
    bench.primary(&data(1001, b"same"));
    bench.primary(&data(1005, b"10:15"));
    bench.secondary(&data(1001, b"same"));
    bench.secondary(&data(1005, b"10:"));
    bench.secondary(&data(1008, b"16"));
    assert_eq!(evidence(&mut bench), (vec![data(1005, b"10:15")], vec![data(1005, b"10:"), data(1008, b"16")]));
    bench.checkpoint();
    bench.secondary(&udp(1, 2, b"alone"));
    bench.pass(Duration::from_millis(200));
    assert_eq!(evidence(&mut bench), (vec![], vec![udp(1, 2, b"alone")]));
    bench.checkpoint();
    bench.secondary(&data(0x5000_0000, b"far"));
    assert_eq!(evidence(&mut bench), (vec![], vec![data(0x5000_0000, b"far")]));
}
