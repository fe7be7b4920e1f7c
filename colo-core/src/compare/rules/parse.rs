use super::mask::{Masks, Span, Text};
use super::{Action, Endpoint, Match, Protocol, Rule, Rules};
use std::iter::Peekable;
use std::net::IpAddr;
use std::str::FromStr;

/// The most rules; one is looked for whenever a flow begins.
const MAX_RULES: usize = 1024;

/// What is wrong with a rule.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("line {line}: {reason}")]
pub struct RuleError {
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

impl FromStr for Rules {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let at_line = |reason| RuleError { line: index + 1, reason };
            let words = words(line).map_err(at_line)?;
            if words.is_empty() {
                continue;
            }
            if rules.len() == MAX_RULES {
                return Err(at_line(format!("at most {MAX_RULES} rules")));
            }
            rules.push(rule(words).map_err(at_line)?);
        }
        Ok(Rules(rules.into()))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Word {
    Bare(String),
    Text(Vec<u8>),
}

fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next().filter(|first| *first != '#') {
        let end = if first == '"' {
            let (text, end) = quoted(rest)?;
            words.push(Word::Text(text));
            end
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '#').unwrap_or(rest.len());
            words.push(Word::Bare(rest[..end].to_owned()));
            end
        };
        rest = rest[end..].trim_start();
    }
    Ok(words)
}

/// The text in quotes that a string begins with, and its length with them.
fn quoted(from: &str) -> Result<(Vec<u8>, usize), String> {
    let mut text = Vec::new();
    let mut chars = from.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((text, at + 1)),
            '\\' => {
                let (_, escape) = chars.next().ok_or("a text ends in the middle of `\\`")?;
                text.push(match escape {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '"' | '\\' => escape as u8,
                    'x' => {
                        let digits: String = chars.by_ref().take(2).map(|(_, digit)| digit).collect();
                        let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
                        byte.ok_or_else(|| format!("`\\x{digits}`: two hexadecimal digits are needed"))?
                    }
                    _ => return Err(format!("`\\{escape}` is not known: use \\r, \\n, \\t, \\\", \\\\ or \\xHH")),
                });
            }
            _ => text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err("a text has no closing quote".into())
}

type Words = Peekable<std::vec::IntoIter<Word>>;

fn rule(words: Vec<Word>) -> Result<Rule, String> {
    let mut words = words.into_iter().peekable();
    let action = bare(&mut words, "an action")?;
    let mut matches = Match { protocol: protocol(&mut words)?, ..Match::default() };
    let mut masks = Masks::default();
    while words.peek().is_some() {
        let clause = bare(&mut words, "`from`, `to`, `nic`, `vlan`, `bytes` or `after`")?;
        match clause.as_str() {
            "from" => matches.source = endpoint(&bare(&mut words, "an address or a port")?)?,
            "to" => matches.destination = endpoint(&bare(&mut words, "an address or a port")?)?,
            "nic" => matches.nic = Some(number(&mut words, "a network card's number", 0, 255)? as u8),
            "vlan" => matches.vlan = Some(number(&mut words, "a VLAN", 1, 4094)? as u16),
            "bytes" => masks.ranges.push(range(&bare(&mut words, "FROM..TO")?)?),
            "after" => {
                let after = text(&mut words, "after")?;
                match words.next() {
                    Some(Word::Bare(word)) if word == "until" => {}
                    _ => return Err("`after \"...\"` needs `until \"...\"` behind it".into()),
                }
                masks.spans.push(Span { after, until: text(&mut words, "until")? });
            }
            other => return Err(format!("`{other}` is not known: use from, to, nic, vlan, bytes or after")),
        }
    }
    let has_ports = matches.source.port.is_some() || matches.destination.port.is_some();
    if has_ports && !matches!(matches.protocol, None | Some(Protocol::Tcp | Protocol::Udp)) {
        return Err("only tcp and udp have ports".into());
    }
    let has_masks = masks != Masks::default();
    let action = match action.as_str() {
        "mask" if !has_masks => {
            return Err("a mask needs `bytes FROM..TO` or `after \"...\" until \"...\"`".into());
        }
        "mask" => Action::Mask(masks),
        "bypass" | "ignore" if has_masks => return Err(format!("only `mask` has bytes, `{action}` has not")),
        "bypass" => Action::Bypass,
        "ignore" => Action::Ignore,
        other => return Err(format!("`{other}` is not an action: use bypass, ignore or mask")),
    };
    Ok(Rule { matches, action })
}

fn bare(words: &mut Words, wanted: &str) -> Result<String, String> {
    match words.next() {
        Some(Word::Bare(word)) => Ok(word),
        Some(Word::Text(_)) => Err(format!("{wanted} is wanted, not a text in quotes")),
        None => Err(format!("it ends where {wanted} is wanted")),
    }
}

fn text(words: &mut Words, before: &str) -> Result<Text, String> {
    match words.next() {
        Some(Word::Text(bytes)) if !bytes.is_empty() => Ok(Text::new(bytes)),
        _ => Err(format!("`{before}` needs a text in quotes behind it")),
    }
}

fn number(words: &mut Words, wanted: &str, least: u64, most: u64) -> Result<u64, String> {
    let word = bare(words, wanted)?;
    let number = word.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("`{word}` is not {wanted} ({least} to {most})"))
}

fn protocol(words: &mut Words) -> Result<Option<Protocol>, String> {
    let word = bare(words, "a protocol")?;
    Ok(Some(match word.as_str() {
        "any" => return Ok(None),
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        "arp" => Protocol::Arp,
        "ip" => Protocol::Ip(number(words, "an IP protocol's number", 0, 255)? as u8),
        _ => return Err(format!("`{word}` is not a protocol: use tcp, udp, icmp, arp, `ip NUMBER` or any")),
    }))
}

fn endpoint(word: &str) -> Result<Endpoint, String> {
    let wrong =
        || format!("`{word}` is not ADDRESS, ADDRESS/BITS, :PORT, or an address with :PORT ([ADDRESS]:PORT for IPv6)");
    let (network, port) = match word.rsplit_once(':') {
        // The colons of an address alone.
        Some((network, _)) if network.contains(':') && !network.ends_with(']') => (word, None),
        Some((network, port)) => (network, Some(port.parse().map_err(|_| wrong())?)),
        None => (word, None),
    };
    let network = network.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(network);
    if network.is_empty() {
        return Ok(Endpoint { network: None, port });
    }
    let (address, bits) = network.split_once('/').map_or((network, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| wrong()))?;
    if bits > width {
        return Err(format!("`{word}`: at most {width} bits"));
    }
    Ok(Endpoint { network: Some((address, bits)), port })
}

fn range(word: &str) -> Result<std::ops::Range<u64>, String> {
    let ends = word.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    match ends {
        Some((from, to)) if from < to => Ok(from..to),
        _ => Err(format!("`{word}` is not FROM..TO, with the first below the second")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (rule, reason) in [
            ("mask", "it ends where a protocol is wanted"),
            ("drop tcp", "`drop` is not an action: use bypass, ignore or mask"),
            ("bypass sctp", "`sctp` is not a protocol: use tcp, udp, icmp, arp, `ip NUMBER` or any"),
            ("bypass ip 256", "`256` is not an IP protocol's number (0 to 255)"),
            ("bypass tcp form :80", "`form` is not known: use from, to, nic, vlan, bytes or after"),
            ("bypass tcp from 10.0.0.1/33", "`10.0.0.1/33`: at most 32 bits"),
            ("bypass tcp vlan 0", "`0` is not a VLAN (1 to 4094)"),
            ("bypass arp from :80", "only tcp and udp have ports"),
            ("ignore udp bytes 0..8", "only `mask` has bytes, `ignore` has not"),
            ("mask udp bytes 8..8", "`8..8` is not FROM..TO, with the first below the second"),
            ("mask udp after \"x\"", "`after \"...\"` needs `until \"...\"` behind it"),
            ("mask udp after \"\" until \"x\"", "`after` needs a text in quotes behind it"),
            ("mask udp after \"x", "a text has no closing quote"),
            ("mask udp after \"\\q\"", "`\\q` is not known: use \\r, \\n, \\t, \\\", \\\\ or \\xHH"),
            ("mask udp after \"\\x4\"", "`\\x4\"`: two hexadecimal digits are needed"),
        ] {
            let error = format!("# one\nbypass any\n{rule}\n").parse::<Rules>().unwrap_err();
            assert_eq!(error, RuleError { line: 3, reason: reason.into() });
        }
        for word in ["10.0.0", ":x", "::1:", "[::1", "[::1]:x", "10.0.0.1:70000", "/8"] {
            assert!(endpoint(word).is_err(), "{word}");
        }
    }

    #[test]
    fn endpoints_are_read() {
        let is = |word: &str, network: Option<(&str, u8)>, port: Option<u16>| {
            let network = network.map(|(address, bits)| (address.parse().unwrap(), bits));
            assert_eq!(endpoint(word), Ok(Endpoint { network, port }), "{word}");
        };
        is(":80", None, Some(80));
        is("10.0.0.1", Some(("10.0.0.1", 32)), None);
        is("10.0.0.0/8:80", Some(("10.0.0.0", 8)), Some(80));
        is("::1", Some(("::1", 128)), None);
        is("fe80::/10", Some(("fe80::", 10)), None);
        is("[fe80::1]:80", Some(("fe80::1", 128)), Some(80));
        is("[fe80::/10]:80", Some(("fe80::", 10)), Some(80));
    }

    #[test]
    fn texts_have_escapes() {
        assert_eq!(
            words("a \"\\r\\n\\x7f\\\\\\\"ä\"#x"),
            Ok(vec![Word::Bare("a".into()), Word::Text("\r\n\x7f\\\"ä".into())])
        );
    }

    proptest! {
        #[test]
        fn anything_is_a_rule_or_an_error(text in "[a-z0-9 :./\"\\\\\\[\\]#\n]{0,80}") {
            let _ = text.parse::<Rules>();
        }
    }
}
