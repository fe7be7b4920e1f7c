use super::*;
use crate::ids::{PAGE_SIZE, Pfn};
use crate::stream::{DomainHeader, ImageHeader, Limits, PageType, Records, page_data_prefix, write_record};
use proptest::prelude::*;

fn headers(domain: DomainKind, version: Version) -> Headers {
    Headers {
        image: ImageHeader { version },
        domain: DomainHeader { kind: domain, page_shift: 12, xen_major: 4, xen_minor: 17 },
    }
}

/// Where the first record that may not come stands, and why it may not.
fn check(headers: &Headers, stream_use: StreamUse, kinds: &[u32]) -> Result<(), (usize, Fault)> {
    run(OrderChecker::new(headers, stream_use), kinds)
}

fn run(mut order: OrderChecker, kinds: &[u32]) -> Result<(), (usize, Fault)> {
    for (index, &kind) in kinds.iter().enumerate() {
        let mut bytes = Vec::new();
        if kind == kind::PAGE_DATA {
            page_data_prefix([(Pfn(0), PageType::Normal)], &mut bytes);
            bytes.extend([0; PAGE_SIZE]);
        } else {
            write_record(&mut bytes, kind, body(kind)).unwrap();
        }
        let record = Records::new(&bytes, Limits::new(1)).next().unwrap().unwrap();
        order.check(&record).map_err(|error| (index, error.fault))?;
    }
    order.finish().map_err(|error| (kinds.len(), error.fault))
}

/// A body of which the order does not complain.
fn body(kind: u32) -> &'static [u8] {
    match kind {
        kind::X86_PV_INFO => &[8, 4, 0, 0, 0, 0, 0, 0],
        kind::X86_PV_VCPU_BASIC => &[0, 0, 0, 0, 0, 0, 0, 0, 1],
        _ => &[],
    }
}

const PV: &[u32] = &[
    kind::X86_PV_INFO,
    kind::X86_CPUID_POLICY,
    kind::STATIC_DATA_END,
    kind::X86_PV_P2M_FRAMES,
    kind::PAGE_DATA,
    kind::X86_TSC_INFO,
    kind::SHARED_INFO,
    kind::X86_PV_VCPU_BASIC,
    kind::X86_PV_VCPU_MSRS,
    kind::END,
];
const HVM: &[u32] = &[
    kind::X86_MSR_POLICY,
    kind::STATIC_DATA_END,
    kind::PAGE_DATA,
    kind::X86_TSC_INFO,
    kind::HVM_PARAMS,
    kind::HVM_CONTEXT,
    kind::END,
];
const EMBEDDED: &[u32] = &[
    kind::STATIC_DATA_END,
    kind::PAGE_DATA,
    kind::EMBEDDED_VCPU,
    kind::NET_STATE,
    kind::CHECKPOINT,
    kind::PAGE_DATA,
    kind::EMBEDDED_VCPU,
    kind::CHECKPOINT,
    kind::END,
];

#[test]
fn streams_as_the_specification_shows_them() {
    assert_eq!(check(&headers(DomainKind::X86Pv, Version::V3), StreamUse::Plain, PV), Ok(()));
    assert_eq!(check(&headers(DomainKind::X86Hvm, Version::V3), StreamUse::Plain, HVM), Ok(()));
    let embedded = headers(DomainKind::Embedded, Version::V3);
    assert_eq!(check(&embedded, StreamUse::Checkpointed, EMBEDDED), Ok(()));
}

#[test]
fn version_2_has_no_static_data_end() {
    let old: Vec<u32> =
        PV.iter().copied().filter(|kind| !matches!(*kind, kind::X86_CPUID_POLICY | kind::STATIC_DATA_END)).collect();
    assert_eq!(check(&headers(DomainKind::X86Pv, Version::V2), StreamUse::Plain, &old), Ok(()));
    let stream = "a stream of version 2";
    let refused = |index, kind| Err((index, Fault::NotAllowed { kind, stream }));
    let v2 = headers(DomainKind::X86Hvm, Version::V2);
    assert_eq!(check(&v2, StreamUse::Plain, HVM), refused(0, kind::X86_MSR_POLICY));
    assert_eq!(check(&v2, StreamUse::Plain, &HVM[1..]), refused(0, kind::STATIC_DATA_END));
    assert_eq!(check(&v2, StreamUse::Plain, &HVM[2..]), Ok(()));
}

#[test]
fn records_where_they_may_not_be() {
    use kind::*;
    let pv = |kinds: &[u32]| check(&headers(DomainKind::X86Pv, Version::V3), StreamUse::Plain, kinds);
    let hvm = |stream_use, kinds: &[u32]| check(&headers(DomainKind::X86Hvm, Version::V3), stream_use, kinds);
    let out_of_order = |index, kind, expected| Err((index, Fault::OutOfOrder { kind, expected }));
    let not_allowed = |index, kind, stream| Err((index, Fault::NotAllowed { kind, stream }));
    let (plain, checkpointed) = (StreamUse::Plain, StreamUse::Checkpointed);
    let static_end = STATIC_DATA_END;

    assert_eq!(hvm(plain, &[PAGE_DATA]), out_of_order(0, PAGE_DATA, "STATIC_DATA_END"));
    assert_eq!(hvm(plain, &[END]), out_of_order(0, END, "STATIC_DATA_END"));
    assert_eq!(hvm(plain, &[static_end, static_end]), out_of_order(1, static_end, "memory or state"));
    assert_eq!(hvm(plain, &[static_end, HVM_CONTEXT, HVM_PARAMS, END]), Ok(()), "as Xen's tools write it");
    assert_eq!(hvm(plain, &[static_end, HVM_PARAMS, END]), out_of_order(2, END, "HVM_CONTEXT"));
    assert_eq!(hvm(plain, &[static_end, HVM_CONTEXT, END, END]), out_of_order(3, END, "nothing"));
    assert_eq!(hvm(plain, &[static_end, HVM_CONTEXT, END, NET_STATE]), out_of_order(3, NET_STATE, "nothing"));
    assert_eq!(hvm(plain, &[static_end, PAGE_DATA]), Err((2, Fault::NoEnd)));
    assert_eq!(hvm(plain, &[static_end, CHECKPOINT]), not_allowed(1, CHECKPOINT, "a plain stream"));
    assert_eq!(hvm(checkpointed, &[static_end, VERIFY]), not_allowed(1, VERIFY, "a checkpointed stream"));
    assert_eq!(hvm(plain, &[static_end, VERIFY]), out_of_order(1, VERIFY, "PAGE_DATA"));
    let twice = [static_end, PAGE_DATA, VERIFY, PAGE_DATA, VERIFY];
    assert_eq!(hvm(plain, &twice), out_of_order(4, VERIFY, "memory or state"));
    let second = [static_end, HVM_PARAMS, HVM_CONTEXT, CHECKPOINT, HVM_PARAMS, CHECKPOINT];
    assert_eq!(hvm(checkpointed, &second), out_of_order(5, CHECKPOINT, "HVM_CONTEXT"));
    assert_eq!(hvm(checkpointed, &[&second[..4], &[PAGE_DATA, END]].concat()), Ok(()), "the last state is whole");
    let list = CHECKPOINT_DIRTY_PFN_LIST;
    assert_eq!(hvm(checkpointed, &[static_end, list]), not_allowed(1, list, "a stream to the secondary"));
    assert_eq!(hvm(plain, &[X86_PV_INFO]), not_allowed(0, X86_PV_INFO, "the stream of an HVM guest"));

    assert_eq!(pv(&[static_end]), out_of_order(0, static_end, "X86_PV_INFO"));
    assert_eq!(pv(&[X86_PV_INFO, X86_PV_INFO]), out_of_order(1, X86_PV_INFO, "STATIC_DATA_END"));
    let begun = [X86_PV_INFO, static_end];
    let then = |kinds: &[u32]| pv(&[&begun, kinds].concat());
    assert_eq!(then(&[PAGE_DATA]), out_of_order(2, PAGE_DATA, "X86_PV_P2M_FRAMES"));
    assert_eq!(then(&[X86_PV_VCPU_XSAVE]), out_of_order(2, X86_PV_VCPU_XSAVE, "PAGE_DATA"));
    assert_eq!(then(&[X86_PV_P2M_FRAMES, PAGE_DATA, END]), out_of_order(4, END, "X86_PV_VCPU_BASIC of vCPU 0"));
    assert_eq!(then(&[HVM_PARAMS]), not_allowed(2, HVM_PARAMS, "the stream of a PV guest"));
}

#[test]
fn a_refused_record_does_not_count() {
    let mut order = OrderChecker::new(&headers(DomainKind::Embedded, Version::V3), StreamUse::Plain);
    assert!(order.check(&RecordRef::End).is_err());
    order.check(&RecordRef::StaticDataEnd).unwrap();
    order.check(&RecordRef::End).unwrap();
    order.finish().unwrap();
}

/// What a checkpointed embedded stream may be, said as a whole rather than step by step.
fn is_embedded_stream(kinds: &[u32]) -> bool {
    let needed: Vec<u32> = kinds.iter().copied().filter(|kind| !kind::is_optional(*kind)).collect();
    let [kind::STATIC_DATA_END, middle @ .., kind::END] = needed.as_slice() else {
        return false;
    };
    kinds.last() == Some(&kind::END) && middle.iter().all(|kind| matches!(*kind, kind::PAGE_DATA | kind::CHECKPOINT))
}

/// What a stream of a Xen domain of version 3 may be, said as a whole rather than step by step.
fn is_xen_stream(domain: DomainKind, stream_use: StreamUse, kinds: &[u32]) -> bool {
    use kind::*;
    let is_vcpu = |kind: &u32| VcpuPart::of_kind(*kind).is_some();
    let (static_kinds, guest_kinds, machine): (&[u32], &[u32], u32) = match domain {
        DomainKind::X86Pv => (
            &[X86_PV_INFO, X86_CPUID_POLICY, X86_MSR_POLICY],
            &[PAGE_DATA, X86_TSC_INFO, X86_PV_P2M_FRAMES, SHARED_INFO, X86_PV_VCPU_BASIC, X86_PV_VCPU_MSRS],
            X86_PV_VCPU_BASIC,
        ),
        _ => (&[X86_CPUID_POLICY, X86_MSR_POLICY], &[PAGE_DATA, X86_TSC_INFO, HVM_PARAMS, HVM_CONTEXT], HVM_CONTEXT),
    };
    let Some(static_end) = kinds.iter().position(|kind| *kind == STATIC_DATA_END) else { return false };
    let (before, [_, rest @ ..]) = kinds.split_at(static_end) else { return false };
    let [guest @ .., END] = rest else { return false };
    let first = |wanted: u32| guest.iter().position(|kind| *kind == wanted);
    let comes_after =
        |at: Option<usize>, wanted: u32| at.is_none() || first(wanted).is_some_and(|first| Some(first) < at);

    let infos = before.iter().filter(|kind| **kind == X86_PV_INFO).count();
    let pv = domain != DomainKind::X86Pv
        || infos == 1
            && comes_after(first(PAGE_DATA), X86_PV_P2M_FRAMES)
            && comes_after(guest.iter().position(is_vcpu), PAGE_DATA);
    let states: Vec<&[u32]> = guest.split(|kind| *kind == CHECKPOINT).collect();
    // What comes behind the last checkpoint need not be whole.
    let whole = &states[..states.len().saturating_sub(1).max(1)];
    let verifies = guest.iter().filter(|kind| **kind == VERIFY).count();
    let use_fits = match stream_use {
        StreamUse::Plain => states.len() == 1 && verifies <= 1 && comes_after(first(VERIFY), PAGE_DATA),
        StreamUse::Checkpointed => verifies == 0,
    };
    before.iter().all(|kind| static_kinds.contains(kind))
        && guest.iter().all(|kind| guest_kinds.contains(kind) || matches!(*kind, CHECKPOINT | VERIFY))
        && pv
        && use_fits
        && whole.iter().all(|state| state.contains(&machine))
}

/// A good stream, and records to spoil it with.
fn xen_streams() -> impl Strategy<Value = (DomainKind, Vec<u32>, Vec<u32>)> {
    let checkpointed = |kinds: &[u32], static_end: usize| {
        let (before, guest) = kinds.split_at(static_end);
        let state = [&guest[..guest.len() - 1], &[kind::CHECKPOINT]].concat();
        [before, &state, &state, &[kind::END]].concat()
    };
    let others = vec![kind::VERIFY, kind::CHECKPOINT, kind::X86_PV_INFO, kind::HVM_CONTEXT, kind::END];
    prop::sample::select(vec![
        (DomainKind::X86Pv, PV.to_vec(), others.clone()),
        (DomainKind::X86Pv, checkpointed(PV, 3), others.clone()),
        (DomainKind::X86Hvm, HVM.to_vec(), others.clone()),
        (DomainKind::X86Hvm, checkpointed(HVM, 2), others),
    ])
}

proptest! {
    #[test]
    fn embedded_streams_by_a_model(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3), 0..4),
    ) {
        let mut kinds = EMBEDDED.to_vec();
        for (at, other, change) in changes {
            let (at, other) = (at.index(kinds.len()), other.index(kinds.len()));
            match change {
                0 => kinds.swap(at, other),
                1 => kinds.insert(at, kinds[other]),
                _ if kinds.len() > 1 => drop(kinds.remove(at)),
                _ => {}
            }
        }
        let result = check(&headers(DomainKind::Embedded, Version::V3), StreamUse::Checkpointed, &kinds);
        prop_assert_eq!(result.is_ok(), is_embedded_stream(&kinds), "{:?}: {:?}", kinds, result);
    }

    #[test]
    fn xen_streams_by_a_model(
        (domain, mut kinds, others) in xen_streams(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4), 0..4),
        checkpointed: bool,
    ) {
        for (at, other, change) in changes {
            let (at, from) = (at.index(kinds.len()), other.index(kinds.len()));
            match change {
                0 => kinds.swap(at, from),
                1 => kinds.insert(at, kinds[from]),
                2 => kinds.insert(at, others[other.index(others.len())]),
                _ if kinds.len() > 1 => drop(kinds.remove(at)),
                _ => {}
            }
        }
        let headers = headers(domain, Version::V3);
        let stream_use = if checkpointed { StreamUse::Checkpointed } else { StreamUse::Plain };
        let result = check(&headers, stream_use, &kinds);
        prop_assert_eq!(result.is_ok(), is_xen_stream(domain, stream_use, &kinds), "{:?}: {:?}", kinds, result);

        // Where the use is not known, what fits one of them fits.
        let either = run(OrderChecker::for_any_use(&headers), &kinds);
        let expected = [StreamUse::Plain, StreamUse::Checkpointed].iter().any(|used| is_xen_stream(domain, *used, &kinds));
        prop_assert_eq!(either.is_ok(), expected, "{:?}: {:?}", kinds, either);
    }
}
