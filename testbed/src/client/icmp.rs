//! ICMP's echo: the question, and what is an answer to it.

/// Type, code, checksum, identifier, sequence number.
const HEADER_BYTES: usize = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// A question. Its number is in its data, for the field for it has but 16 bits.
pub(super) fn request(id: u16, number: u64) -> Vec<u8> {
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0];
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&(number as u16).to_be_bytes());
    packet.extend_from_slice(&number.to_be_bytes());
    // As many data as ping's.
    packet.resize(HEADER_BYTES + 56, b'.');
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// The number of the question to which this IPv4 packet is an answer, if it is one to one of ours.
pub(super) fn reply(packet: &[u8], id: u16) -> Option<u64> {
    let header_bytes = usize::from(packet.first()? & 0xf) * 4;
    let icmp = packet.get(header_bytes..)?;
    if icmp.len() < HEADER_BYTES + 8 || checksum(icmp) != 0 {
        return None;
    }
    let number = u64::from_be_bytes(icmp[HEADER_BYTES..HEADER_BYTES + 8].try_into().ok()?);
    let is_ours = icmp[..2] == [ECHO_REPLY, 0] && icmp[4..6] == id.to_be_bytes();
    (is_ours && icmp[6..8] == (number as u16).to_be_bytes()).then_some(number)
}

/// The Internet's checksum; of something that holds its own, 0.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back: an IPv4 header, and the question as an answer.
    fn answered(mut request: Vec<u8>) -> Vec<u8> {
        request[0] = ECHO_REPLY;
        request[2..4].fill(0);
        let sum = checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&sum);
        let mut packet = vec![0x45; 20];
        packet.extend_from_slice(&request);
        packet
    }

    #[test]
    fn an_answer_has_the_number_of_its_question() {
        assert_eq!(reply(&answered(request(7, 70_000)), 7), Some(70_000));
    }

    #[test]
    fn what_is_no_answer_to_us() {
        assert_eq!(reply(&answered(request(7, 1)), 8), None);
        let mut question = vec![0x45; 20];
        question.extend_from_slice(&request(7, 1));
        assert_eq!(reply(&question, 7), None);
        let mut damaged = answered(request(7, 1));
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(reply(&damaged, 7), None);
        assert_eq!(reply(&answered(request(7, 1))[..30], 7), None);
        assert_eq!(reply(&[], 7), None);
    }

    #[test]
    fn the_checksum_of_rfc_1071() {
        assert_eq!(!checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(checksum(&request(7, 1)), 0);
    }
}
