use super::*;
use crate::net::Offload;
use crate::net::testing::{CARRIERS, Tcp, ack_of, carried, fragments, seq_of};
use proptest::prelude::*;

mod icmp;

const CLIENT_PORT: u16 = 4000;
const SERVER_PORT: u16 = 80;

fn from_client() -> Tcp {
    Tcp::new(CLIENT_PORT, SERVER_PORT).inbound()
}

fn from_guest() -> Tcp {
    Tcp::new(SERVER_PORT, CLIENT_PORT)
}

/// SACK blocks behind any number of NOPs, so that they stand on odd and even places.
fn sack_option(padding: usize, edges: &[u32]) -> Vec<u8> {
    let mut option = vec![1; padding];
    option.extend_from_slice(&[TcpOption::SACK, 2 + 4 * edges.len() as u8]);
    option.extend(edges.iter().flat_map(|edge| edge.to_be_bytes()));
    option
}

/// The clocks behind any number of NOPs.
fn clock_option(padding: usize, value: u32, echo: u32) -> Vec<u8> {
    let mut option = vec![1; padding];
    option.extend_from_slice(&[TcpOption::TIMESTAMPS, 10]);
    option.extend([value, echo].iter().flat_map(|clock| clock.to_be_bytes()));
    option
}

/// What a machine chooses for itself.
#[derive(Clone, Copy, Debug)]
struct Machine {
    isn: u32,
    clock: u32,
}

impl Machine {
    /// What it says at a time of its connection.
    fn says(&self, segment: Tcp, padding: usize, time: u32) -> Frame {
        segment.options(&clock_option(padding, self.clock.wrapping_add(time), 77)).frame()
    }

    /// What the client answers that has heard what it said then.
    fn hears(&self, segment: Tcp, padding: usize, time: u32) -> Frame {
        segment.options(&clock_option(padding, 88, self.clock.wrapping_add(time))).frame()
    }
}

prop_compose! {
    fn machine()(isn: u32, clock: u32) -> Machine {
        Machine { isn, clock }
    }
}

/// What either machine sends after the handshake and what the client answers.
fn conversation(machine: Machine, client_isn: u32, padding: usize) -> Vec<(bool, Frame)> {
    let at = |bytes: u32| machine.isn.wrapping_add(bytes);
    let client_at = |bytes: u32| client_isn.wrapping_add(bytes);
    let sack = sack_option(padding, &[at(11), at(21), at(31), at(41)]);
    vec![
        (false, machine.hears(from_client().seq(client_at(1)).ack(at(1)), padding, 0)),
        (true, machine.says(from_guest().seq(at(1)).ack(client_at(1)), padding, 5)),
        (false, machine.hears(from_client().seq(client_at(1)).ack(at(1)).payload(b"odd"), padding, 5)),
        (true, machine.says(from_guest().seq(at(1)).ack(client_at(4)).payload(b"odd"), 0, 1 << 20)),
        (false, from_client().seq(client_at(1)).ack(at(1)).frame()),
        (false, from_client().seq(client_at(1)).ack(at(1)).payload(b"GET /").frame()),
        (true, from_guest().seq(at(1)).ack(client_at(6)).payload(b"0123456789").frame()),
        (true, from_guest().seq(at(11)).ack(client_at(6)).payload(b"odd length!").frame()),
        (false, from_client().seq(client_at(6)).ack(at(11)).options(&sack).frame()),
        (true, from_guest().seq(at(22)).ack(client_at(6)).fin().frame()),
        (false, from_client().seq(client_at(6)).ack(at(23)).fin().frame()),
        (true, from_guest().seq(at(23)).ack(client_at(7)).frame()),
        // Both have closed: the last acknowledgement is lost and repeated.
        (true, from_guest().seq(at(23)).ack(client_at(7)).frame()),
    ]
}

proptest! {
    /// Two machines with different first numbers: the guest sees what a client of its own would say, the client what the
    /// primary says, byte for byte and checksum for checksum.
    #[test]
    fn client_connects(
        primary in machine(),
        secondary in machine(),
        client_isn: u32,
        padding in 0..3usize,
        keep_a_reference: bool,
        way in 0..CARRIERS,
    ) {
        let mut rewriter = Rewriter::new();
        let syn = carried(way, &from_client().syn().seq(client_isn).frame());
        prop_assert_eq!(rewriter.handle_input(0, syn.clone()), Some(syn));
        let syn_ack_of = |machine: Machine| {
            let syn_ack = from_guest().syn().seq(machine.isn).ack(client_isn.wrapping_add(1));
            carried(way, &machine.says(syn_ack, padding, 0))
        };
        let syn_ack = syn_ack_of(secondary);
        prop_assert_eq!(rewriter.handle_output(0, syn_ack.clone()), syn_ack.clone());
        let both = [primary, secondary].map(|machine| conversation(machine, client_isn, padding));
        let mut references = Vec::new();
        for ((is_output, of_primary), (_, of_secondary)) in both[0].iter().zip(&both[1]) {
            let (of_primary, of_secondary) = (carried(way, of_primary), carried(way, of_secondary));
            if keep_a_reference {
                references.extend([of_primary.clone(), of_secondary.clone()]);
            }
            if *is_output {
                prop_assert_eq!(rewriter.handle_output(0, of_secondary), of_primary);
            } else {
                prop_assert_eq!(rewriter.handle_input(0, of_primary), Some(of_secondary));
            }
        }
        // A repeated SYN-ACK carries the primary's number now.
        prop_assert_eq!(rewriter.handle_output(0, syn_ack), syn_ack_of(primary));
    }

    #[test]
    fn guest_connects(primary in machine(), secondary in machine(), peer_isn: u32) {
        let mut rewriter = Rewriter::new();
        let syn = secondary.says(from_guest().syn().seq(secondary.isn), 0, 0);
        prop_assert_eq!(rewriter.handle_output(0, syn.clone()), syn);
        let syn_ack = |machine: Machine| {
            machine.hears(from_client().syn().seq(peer_isn).ack(machine.isn.wrapping_add(1)), 0, 0)
        };
        prop_assert_eq!(rewriter.handle_input(0, syn_ack(primary)), Some(syn_ack(secondary)));
        let hello = |machine: Machine| {
            let hello = from_guest().seq(machine.isn.wrapping_add(1)).ack(peer_isn.wrapping_add(1)).payload(b"hello");
            machine.says(hello, 1, 900)
        };
        prop_assert_eq!(rewriter.handle_output(0, hello(secondary)), hello(primary));
    }

    /// The client has the primary's SYN-ACK before the secondary's guest has answered.
    #[test]
    fn what_comes_before_the_answer_is_kept(primary_isn: u32, secondary_isn: u32, count in 1..MAX_KEPT_FRAMES + 5) {
        let mut rewriter = Rewriter::new();
        rewriter.handle_input(3, from_client().syn().seq(9).frame());
        let segment = |isn: u32, index: usize| {
            from_client().seq(10 + index as u32).ack(isn.wrapping_add(1)).payload(&[index as u8]).frame()
        };
        for index in 0..count {
            prop_assert_eq!(rewriter.handle_input(3, segment(primary_isn, index)), None);
        }
        prop_assert_eq!(rewriter.poll_input(), None);
        let syn_ack = rewriter.handle_output(3, from_guest().syn().seq(secondary_isn).ack(10).frame());
        prop_assert_eq!(seq_of(&syn_ack), Seq(primary_isn));
        for index in 0..count.min(MAX_KEPT_FRAMES) {
            prop_assert_eq!(rewriter.poll_input(), Some((3, segment(secondary_isn, index))));
        }
        prop_assert_eq!(rewriter.poll_input(), None);
        prop_assert_eq!(rewriter.kept_bytes, 0);
        prop_assert_eq!(rewriter.counters().inputs_dropped, count.saturating_sub(MAX_KEPT_FRAMES) as u64);
        prop_assert_eq!(rewriter.handle_input(3, segment(primary_isn, 99)), Some(segment(secondary_isn, 99)));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
        fuzz(&data);
    }

    /// Well-formed segments with arbitrary fields between two ports reach the code behind the parser.
    #[test]
    fn arbitrary_segments_do_not_panic(
        segments in proptest::collection::vec((any::<u8>(), 0..64u8, any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..60)
    ) {
        let mut data = Vec::new();
        for (side, flags, seq, ack, options) in segments {
            let inbound = side % 16 < 7;
            let tcp = if inbound { from_client() } else { from_guest() };
            let mut frame = tcp.seq(seq).ack(ack).options(&options).frame().to_vec();
            frame[47] = flags;
            data.extend_from_slice(&[side, frame.len() as u8]);
            data.extend_from_slice(&frame);
        }
        fuzz(&data);
    }
}

fn established(primary_isn: u32, secondary_isn: u32) -> Rewriter {
    let mut rewriter = Rewriter::new();
    rewriter.handle_input(0, from_client().syn().seq(9).frame());
    rewriter.handle_output(0, from_guest().syn().seq(secondary_isn).ack(10).frame());
    rewriter.handle_input(0, from_client().seq(10).ack(primary_isn + 1).frame());
    rewriter
}

fn shift(rewriter: &mut Rewriter) -> u32 {
    let out = rewriter.handle_output(0, from_guest().seq(5000).ack(10).payload(b"x").frame());
    5000 - seq_of(&out).0
}

#[test]
fn a_checkpoint_makes_numbers_equal() {
    let mut rewriter = established(100, 300);
    assert_eq!(shift(&mut rewriter), 200);
    rewriter.handle_input(0, Tcp::new(4001, 80).inbound().syn().seq(1).frame());
    assert_eq!(rewriter.handle_input(0, Tcp::new(4001, 80).inbound().seq(2).ack(7).frame()), None);
    rewriter.reset();
    assert_eq!(shift(&mut rewriter), 0);
    assert_eq!((rewriter.poll_input(), rewriter.kept_bytes), (None, 0));
}

#[test]
fn a_connection_half_open_at_a_checkpoint_is_learnt() {
    let mut rewriter = Rewriter::new();
    rewriter.handle_input(0, from_client().syn().seq(9).frame());
    rewriter.reset();
    rewriter.handle_output(0, from_guest().syn().seq(300).ack(10).frame());
    rewriter.handle_input(0, from_client().seq(10).ack(101).frame());
    assert_eq!(shift(&mut rewriter), 200);
}

#[test]
fn a_failover_keeps_known_connections_and_leaves_new_ones_alone() {
    let mut rewriter = established(100, 300);
    rewriter.go_live();
    assert_eq!(shift(&mut rewriter), 200);
    let syn = Tcp::new(4001, 80).inbound().syn().seq(1).frame();
    assert_eq!(rewriter.handle_input(0, syn.clone()), Some(syn));
    let ack = Tcp::new(4001, 80).inbound().seq(2).ack(7).frame();
    assert_eq!(rewriter.handle_input(0, ack.clone()), Some(ack));
    // The same ports again: a new connection with the secondary's own numbers.
    rewriter.handle_input(0, from_client().syn().seq(900).frame());
    let syn_ack = rewriter.handle_output(0, from_guest().syn().seq(8000).ack(901).frame());
    assert_eq!(seq_of(&syn_ack), Seq(8000));
    assert_eq!(ack_of(&rewriter.handle_input(0, from_client().seq(901).ack(8001).frame()).unwrap()), Seq(8001));
    assert_eq!(shift(&mut rewriter), 0);
}

#[test]
fn a_forged_syn_does_not_disturb_a_connection() {
    let mut rewriter = established(100, 300);
    rewriter.handle_input(0, from_client().syn().seq(77_777).frame());
    assert_eq!(shift(&mut rewriter), 200);
    assert_eq!(ack_of(&rewriter.handle_input(0, from_client().seq(10).ack(150).frame()).unwrap()), Seq(350));
}

#[test]
fn ports_used_again_are_learnt_anew() {
    let mut rewriter = established(100, 300);
    rewriter.handle_input(0, from_client().syn().seq(900).frame());
    rewriter.handle_output(0, from_guest().syn().seq(4000).ack(901).frame());
    rewriter.handle_input(0, from_client().seq(901).ack(3901).frame());
    assert_eq!(shift(&mut rewriter), 100);
}

#[test]
fn a_refusal_hands_out_what_was_kept_as_it_came() {
    let mut rewriter = Rewriter::new();
    rewriter.handle_input(0, from_client().syn().seq(9).frame());
    let early = from_client().seq(10).ack(101).frame();
    assert_eq!(rewriter.handle_input(0, early.clone()), None);
    let reset = from_guest().rst().seq(0).ack(10).frame();
    assert_eq!(rewriter.handle_output(0, reset.clone()), reset);
    assert_eq!(rewriter.poll_input(), Some((0, early)));
}

#[test]
fn a_refused_connection_of_the_guest_is_refused_in_its_numbers() {
    let mut rewriter = Rewriter::new();
    rewriter.handle_output(0, from_guest().syn().seq(300).frame());
    let refusal = rewriter.handle_input(0, from_client().rst().seq(0).ack(101).frame()).unwrap();
    assert_eq!(ack_of(&refusal), Seq(301));
}

/// After a failover the client, who has heard the primary, is not to hear a clock that is behind.
#[test]
fn a_primary_that_is_ahead_pulls_the_clock_along() {
    let (primary, secondary) = (Machine { isn: 100, clock: 1000 }, Machine { isn: 300, clock: u32::MAX - 5 });
    let mut rewriter = Rewriter::new();
    rewriter.handle_input(0, from_client().syn().seq(1).frame());
    rewriter.handle_output(0, secondary.says(from_guest().syn().seq(300).ack(2), 0, 0));
    let first = rewriter.handle_input(0, primary.hears(from_client().seq(2).ack(101), 0, 0));
    assert_eq!(first, Some(secondary.hears(from_client().seq(2).ack(301), 0, 0)));
    rewriter.handle_output(0, secondary.says(from_guest().seq(301).ack(2), 0, 10));
    let later = rewriter.handle_input(0, primary.hears(from_client().seq(2).ack(101), 0, 40));
    assert_eq!(later, Some(secondary.hears(from_client().seq(2).ack(301), 0, 10)), "as late as the guest has said");
    let said = rewriter.handle_output(0, secondary.says(from_guest().seq(301).ack(2), 0, 11));
    assert_eq!(said, primary.says(from_guest().seq(101).ack(2), 0, 41));
}

/// The checksum that a card is to complete covers only the pseudo header.
#[test]
fn a_checksum_left_to_the_card_stays() {
    let mut rewriter = established(100, 300);
    let offload = Offload { flags: 1, checksum_start: 34, checksum_offset: 16, ..Offload::default() };
    let said = from_guest().seq(5000).ack(10).payload(b"x").frame();
    let left = rewriter.handle_output(0, said.clone().with_offload(offload));
    assert_eq!((seq_of(&left), left.offload), (Seq(4800), offload));
    assert_eq!(left[42..], said[42..]);
}

#[test]
fn the_first_fragment_has_the_numbers() {
    let mut rewriter = established(100, 300);
    let parts = |seq| fragments(&from_guest().seq(seq).ack(10).payload(&[7; 80]).frame(), 40, 1);
    let (theirs, ours) = (parts(5000), parts(4800));
    for (theirs, ours) in theirs.into_iter().zip(ours) {
        assert_eq!(rewriter.handle_output(0, theirs), ours);
    }
    // Not the whole header.
    let short = &fragments(&from_guest().seq(5000).ack(10).payload(&[7; 80]).frame(), 16, 1)[0];
    assert_eq!(rewriter.handle_output(0, short.clone()), *short);
}

#[test]
fn another_card_is_another_network() {
    let mut rewriter = established(100, 300);
    // Another network card is another network.
    let other = from_guest().seq(5000).ack(10).frame();
    assert_eq!(rewriter.handle_output(1, other.clone()), other);
}

/// A checkpoint in the middle of a handshake: the guest's ring still has its repeated SYN-ACK, and behind it what it said since.
#[test]
fn a_handshake_repeated_after_a_checkpoint_teaches_nothing() {
    let mut rewriter = Rewriter::new();
    rewriter.handle_output(0, from_guest().syn().seq(500).ack(2).frame());
    let data = from_guest().seq(501).ack(2).payload(b"hello").frame();
    assert_eq!(rewriter.handle_output(0, data.clone()), data);
    let acknowledged = from_client().seq(2).ack(506).frame();
    assert_eq!(rewriter.handle_input(0, acknowledged.clone()), Some(acknowledged));
    assert_eq!(rewriter.handle_output(0, data.clone()), data);
}

/// Without it what the client says would be kept until the next checkpoint, and after a failover for ever.
#[test]
fn a_repeated_syn_does_not_stop_a_connection_that_stands() {
    let mut rewriter = Rewriter::new();
    rewriter.handle_input(0, from_client().syn().seq(1).frame());
    let request = from_client().seq(2).ack(506).payload(b"GET /").frame();
    assert_eq!(rewriter.handle_input(0, request.clone()), None, "the guest may not have seen the SYN yet");
    let challenge = from_guest().seq(506).ack(2).frame();
    assert_eq!(rewriter.handle_output(0, challenge.clone()), challenge);
    assert_eq!(rewriter.poll_input(), Some((0, request)));
    // A new connection between the same ports begins anew.
    rewriter.handle_output(0, from_guest().syn().seq(7000).ack(100).frame());
    let first = rewriter.handle_input(0, from_client().seq(100).ack(901).frame()).unwrap();
    assert_eq!(ack_of(&first), Seq(7001));
}

/// A connection whose numbers differ by 6500, on a side that serves; the client is about to say what stands at 2, the guest at 7001.
fn taken_over() -> Rewriter {
    let mut rewriter = Rewriter::new();
    rewriter.handle_input(0, from_client().syn().seq(1).frame());
    rewriter.handle_output(0, from_guest().syn().seq(7000).ack(2).frame());
    rewriter.handle_input(0, from_client().seq(2).ack(501).frame());
    rewriter.go_live();
    rewriter
}

#[test]
fn a_flow_is_rewritten_until_both_fins_are_acknowledged() {
    let now = Instant::now();
    let mut rewriter = taken_over();
    assert_eq!(rewriter.flows_to_rewrite(now), 1);
    rewriter.handle_output(0, from_guest().seq(7001).ack(2).payload(b"bye").fin().frame());
    rewriter.handle_input(0, from_client().seq(2).ack(501).frame());
    rewriter.handle_input(0, from_client().seq(2).ack(504).fin().frame());
    rewriter.handle_output(0, from_guest().seq(7005).ack(2).frame());
    assert_eq!(rewriter.flows_to_rewrite(now), 1, "neither is acknowledged");
    rewriter.handle_output(0, from_guest().seq(7005).ack(3).frame());
    assert_eq!(rewriter.flows_to_rewrite(now), 1, "the client's alone is");
    rewriter.handle_input(0, from_client().seq(3).ack(505).frame());
    assert_eq!(rewriter.flows_to_rewrite(now), 0);
}

#[test]
fn a_reset_from_either_side_ends_a_flow() {
    for of_client in [true, false] {
        let mut rewriter = taken_over();
        if of_client {
            rewriter.handle_input(0, from_client().seq(2).ack(501).rst().frame());
        } else {
            rewriter.handle_output(0, from_guest().seq(7001).ack(2).rst().frame());
        }
        assert_eq!(rewriter.flows_to_rewrite(Instant::now()), 0);
    }
}

#[test]
fn an_idle_flow_is_over_and_one_that_speaks_again_is_not() {
    let now = Instant::now();
    let mut rewriter = taken_over();
    assert_eq!(rewriter.flows_to_rewrite(now), 1);
    assert_eq!(rewriter.flows_to_rewrite(now + IDLE_LIMIT - Duration::from_secs(1)), 1);
    assert_eq!(rewriter.flows_to_rewrite(now + IDLE_LIMIT), 0);
    rewriter.handle_input(0, from_client().seq(2).ack(501).payload(b"still there?").frame());
    assert_eq!(rewriter.flows_to_rewrite(now + IDLE_LIMIT), 1);
}

#[test]
fn only_flows_whose_numbers_differ_need_anybody() {
    let now = Instant::now();
    let mut rewriter = Rewriter::new();
    rewriter.handle_input(0, from_client().syn().seq(1).frame());
    rewriter.go_live();
    assert_eq!(rewriter.flows_to_rewrite(now), 1, "it may yet be found to differ");
    assert_eq!(rewriter.flows_to_rewrite(now + HALF_OPEN_IDLE_LIMIT), 0);
    // The guest answers only now: what the client sees is the guest's own number.
    rewriter.handle_output(0, from_guest().syn().seq(7000).ack(2).frame());
    rewriter.handle_input(0, from_client().seq(2).ack(7001).frame());
    assert_eq!(rewriter.flows_to_rewrite(now + HALF_OPEN_IDLE_LIMIT), 0);
}

/// Anybody can send one, and the guest answers it (RFC 5961) and goes on.
#[test]
fn a_reset_that_the_guest_does_not_believe_ends_nothing() {
    let now = Instant::now();
    let mut rewriter = taken_over();
    let forged = || from_client().rst().seq(77_777).frame();
    rewriter.handle_input(0, forged());
    rewriter.handle_input(0, from_client().seq(2).ack(501).frame());
    assert_eq!(rewriter.flows_to_rewrite(now), 0, "the client's word is not the guest's");
    let challenge = rewriter.handle_output(0, from_guest().seq(7001).ack(2).frame());
    assert_eq!((rewriter.flows_to_rewrite(now), seq_of(&challenge)), (1, Seq(501)));
    rewriter.handle_input(0, forged());
    rewriter.handle_output(0, from_guest().rst().seq(7001).frame());
    rewriter.handle_input(0, from_client().seq(2).ack(501).frame());
    assert_eq!(rewriter.flows_to_rewrite(now), 0, "the guest itself has ended it");
}

/// A client's connection by its port: what it says, and what the guest does.
fn of_port(port: u16) -> (Tcp, Tcp) {
    (Tcp::new(port, SERVER_PORT).inbound(), Tcp::new(SERVER_PORT, port))
}

fn begin(rewriter: &mut Rewriter, port: u16) {
    let (client, guest) = of_port(port);
    rewriter.handle_input(0, client.syn().seq(9).frame());
    rewriter.handle_output(0, guest.syn().seq(300).ack(10).frame());
}

fn end_handshake(rewriter: &mut Rewriter, port: u16) {
    rewriter.handle_input(0, of_port(port).0.seq(10).ack(101).frame());
}

fn is_moved(rewriter: &mut Rewriter, port: u16) -> bool {
    seq_of(&rewriter.handle_output(0, of_port(port).1.seq(5000).ack(10).frame())) == Seq(4800)
}

#[test]
fn connections_that_are_only_begun_push_out_none_that_stands() {
    let mut rewriter = Rewriter::with_room(2, 2);
    for port in [1, 2] {
        begin(&mut rewriter, port);
        end_handshake(&mut rewriter, port);
    }
    (10..20).for_each(|port| begin(&mut rewriter, port));
    assert_eq!((rewriter.connections.len(), rewriter.counters().evicted), (4, 8));
    assert!([1, 2].iter().all(|port| is_moved(&mut rewriter, *port)));
    // The last two are still there to be learnt; whoever stands for longest without a word makes room.
    end_handshake(&mut rewriter, 18);
    assert_eq!((rewriter.connections.len(), rewriter.counters().evicted), (3, 9));
    assert_eq!([1, 2, 18].map(|port| is_moved(&mut rewriter, port)), [false, true, true]);
}

#[test]
fn a_connection_that_goes_on_after_a_reset_is_not_the_first_to_go() {
    for goes_on in [true, false] {
        let mut rewriter = Rewriter::with_room(2, 2);
        for port in [2, 1] {
            begin(&mut rewriter, port);
            end_handshake(&mut rewriter, port);
        }
        rewriter.handle_input(0, of_port(1).0.rst().seq(77_777).frame());
        if goes_on {
            assert!(is_moved(&mut rewriter, 1));
        }
        begin(&mut rewriter, 3);
        end_handshake(&mut rewriter, 3);
        assert_eq!([1, 2].map(|port| is_moved(&mut rewriter, port)), [goes_on, !goes_on]);
    }
}
