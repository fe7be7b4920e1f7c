//! `colo net`.

use crate::args::RepairArgs;
use crate::output::{FAILED, print_json};
use anyhow::Result;
use colo_core::net::takeover::{Repair, Repaired, repair, repair_kept_out};
use serde_json::json;
use std::process::ExitCode;

/// `colo net repair`: one line for each card that there was a record of.
pub(crate) fn repair_cards(args: &RepairArgs, json: bool) -> Result<ExitCode> {
    let cards = if args.kept_out { repair_kept_out(&args.state_folder, |_| true) } else { repair(&args.state_folder) };
    Ok(tell(&cards?, json))
}

/// One line for each card. Returns whether all went well.
pub(crate) fn tell(cards: &[Repair], json: bool) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for card in cards {
        let (event, text) = match &card.result {
            Ok(repaired) => (name(repaired), repaired.to_string()),
            Err(error) => {
                code = ExitCode::from(FAILED);
                ("failed", error.to_string())
            }
        };
        if json {
            print_json(&json!({ "event": event, "vif": card.vif.as_str(), "text": text }));
        } else {
            eprintln!("colo: {}: {text}", card.vif);
        }
    }
    code
}

fn name(repaired: &Repaired) -> &'static str {
    match repaired {
        Repaired::PutBack { .. } => "put-back",
        Repaired::Elsewhere => "elsewhere",
        Repaired::Gone => "gone",
        Repaired::KeptOut => "kept-out",
        Repaired::Untouched => "untouched",
        Repaired::InUse { .. } => "in-use",
        _ => "other",
    }
}
