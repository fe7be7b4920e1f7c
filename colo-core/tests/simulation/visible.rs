//! All that clients were ever shown, and whether a guest could have said it.
//!
//! The rule in this file's terms: every answer that was shown must be in the guest's log, under the same number and with the same
//! content; every byte of a TCP stream at the same place of its stream; and what was acknowledged by TCP it must have heard. Each
//! content depends on all that the guest was asked before, so what was asked before a shown answer is in its past, too.

use crate::frames::{Answer, Packet, Segment, TCP_CLIENT, TCP_FLOWS, UDP_FLOWS, parse};
use crate::guest::Memory;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Visible {
    answers: [BTreeMap<u32, Answer>; UDP_FLOWS],
    streams: [Stream; TCP_FLOWS],
    pub frames: u64,
}

#[derive(Default)]
struct Stream {
    isn: Option<u32>,
    bytes: Vec<Option<u8>>,
    /// The highest acknowledgement.
    acked: Option<u32>,
}

impl Visible {
    /// Clients are shown a frame.
    ///
    /// Fails when it contradicts what they were shown before.
    pub fn show(&mut self, frame: &[u8]) -> Result<(), String> {
        self.frames += 1;
        match parse(frame) {
            Packet::Udp { destination, payload, .. } => {
                let (flow, answer) = Answer::parse(destination, payload);
                let known = *self.answers[flow].entry(answer.index).or_insert(answer);
                if known != answer {
                    return Err(format!("flow {flow}: clients were shown {known:?}, and now {answer:?}"));
                }
                Ok(())
            }
            Packet::Tcp(segment) => {
                let flow = usize::from(segment.destination - TCP_CLIENT);
                self.streams[flow].show(&segment).map_err(|what| format!("connection {flow}: {what}"))
            }
            Packet::Other => Ok(()),
        }
    }

    /// Whether the guest with this memory could have said all of it.
    pub fn check(&self, memory: Memory<'_>) -> Result<(), String> {
        for (flow, answers) in self.answers.iter().enumerate() {
            for (index, shown) in answers {
                if memory.answer(flow, *index).as_ref() != Some(shown) {
                    let said = memory.answer(flow, *index);
                    return Err(format!("flow {flow}: clients were shown {shown:?}, this guest says {said:?}"));
                }
            }
        }
        for (flow, stream) in self.streams.iter().enumerate() {
            stream.check(flow, memory).map_err(|what| format!("connection {flow}: {what}"))?;
        }
        Ok(())
    }

    /// Whether clients were shown everything that the guest ever said by UDP.
    pub fn check_complete(&self, memory: Memory<'_>) -> Result<(), String> {
        for (flow, answers) in self.answers.iter().enumerate() {
            for index in 0..memory.answer_count(flow) {
                if !answers.contains_key(&index) {
                    let said = memory.answer(flow, index);
                    return Err(format!("flow {flow}: {said:?} was never shown to a client"));
                }
            }
        }
        Ok(())
    }
}

impl Stream {
    fn show(&mut self, segment: &Segment<'_>) -> Result<(), String> {
        if segment.rst {
            return Err("reset".into());
        }
        if segment.syn {
            let known = *self.isn.get_or_insert(segment.seq);
            if known != segment.seq {
                // The clients see to it that this does not happen where it must not.
                return Ok(());
            }
        }
        let isn = self.isn.ok_or("a segment before its SYN")?;
        if let Some(ack) = segment.ack {
            let acked = *self.acked.get_or_insert(ack);
            if (ack.wrapping_sub(acked) as i32) > 0 {
                self.acked = Some(ack);
            }
        }
        let at = segment.seq.wrapping_sub(isn).wrapping_sub(1) as usize;
        if segment.payload.is_empty() {
            return Ok(());
        }
        if at > 1 << 20 {
            return Err(format!("a segment at {at}"));
        }
        self.bytes.resize(self.bytes.len().max(at + segment.payload.len()), None);
        for (place, (known, byte)) in self.bytes[at..].iter_mut().zip(segment.payload).enumerate() {
            if *known.get_or_insert(*byte) != *byte {
                return Err(format!("clients are shown another byte at {}", at + place));
            }
        }
        Ok(())
    }

    fn check(&self, flow: usize, memory: Memory<'_>) -> Result<(), String> {
        let Some(acked) = self.acked else {
            return Ok(());
        };
        let stream = memory.stream(flow).ok_or("open to the client, but not to this guest")?;
        if self.bytes.len() > stream.len() {
            return Err(format!("clients were shown {} bytes, this guest has said {}", self.bytes.len(), stream.len()));
        }
        if let Some(at) = self.bytes.iter().zip(stream).position(|(shown, said)| shown.is_some_and(|b| b != *said)) {
            return Err(format!("clients were shown another byte at {at} than this guest has said"));
        }
        let unheard = acked.wrapping_sub(memory.expected(flow)) as i32;
        if unheard > 0 {
            return Err(format!("{unheard} bytes were acknowledged that this guest has not heard"));
        }
        Ok(())
    }
}
