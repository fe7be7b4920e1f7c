//! As much of Rust's lexical structure as it takes to tell code from comments and literals (The Rust Reference, "Tokens").

/// A piece of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token<'a> {
    /// A name, a keyword or a number.
    Word(&'a str),
    /// Any other character.
    Sign(char),
}

/// The code of a source, each piece with its line, from 1; without comments, and without what stands in quotes.
pub(crate) fn tokens(text: &str) -> Vec<(usize, Token<'_>)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = literal_or_comment(rest);
        let length = if skipped > 0 {
            skipped
        } else {
            let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
            let word = word_length(rest);
            if word > 0 {
                tokens.push((line, Token::Word(&rest[..word])));
            } else if !first.is_whitespace() {
                tokens.push((line, Token::Sign(first)));
            }
            word.max(first.len_utf8())
        };
        rest = &rest[length..];
    }
    tokens
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The length of the literal, lifetime or comment at the beginning of the text; 0 when there is none.
fn literal_or_comment(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    let prefix = ["br", "cr", "b", "c", "r"].into_iter().find(|prefix| {
        let after = text[..].strip_prefix(prefix).unwrap_or_default();
        let raw = prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"');
        raw || after.starts_with('"') || (*prefix == "b" && after.starts_with('\''))
    });
    let prefix = prefix.unwrap_or_default();
    let after = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = after.len() - after.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let body = &after[hashes + 1..];
        return body.find(&end).map_or(text.len(), |at| prefix.len() + hashes + 1 + at + end.len());
    }
    match after.chars().next() {
        Some('"') => prefix.len() + quoted(after, '"'),
        Some('\'') if is_character(after) => prefix.len() + quoted(after, '\''),
        // A lifetime.
        Some('\'') => 1 + word_length(&after[1..]),
        _ => 0,
    }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        at += match rest {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        if depth == 0 {
            break;
        }
    }
    at
}

/// Whether a quote begins a character rather than a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

/// The length of what stands between two quotes, with them.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if character == quote && !escaped {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}
