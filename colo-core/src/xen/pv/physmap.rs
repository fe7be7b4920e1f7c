use crate::ids::{Mfn, Pfn};

/// Which page of the guest is in a frame.
pub trait FrameToPfn {
    /// The page in this frame; `None` when the frame is not the guest's, or its tables do not agree on it.
    fn pfn_of(&self, frame: Mfn) -> Option<Pfn>;
}

/// Which frame holds a page of the guest.
pub trait PfnToFrame {
    /// The frame that holds this page; `None` when there is none (yet), or the page is beyond the limit. A frame number has no
    /// more than 40 bits: page tables have no room for more.
    fn frame_of(&self, pfn: Pfn) -> Option<Mfn>;

    /// The first page number that the guest does not have.
    fn pfn_limit(&self) -> u64;
}

/// Xen's own table of all machine frames (m2p): for each frame the number by which its owner knows it. It is Xen's word on the
/// number, but does not say who the owner is.
pub trait MachineToPfn {
    /// What stands in the table for this frame: a page number, or Xen's marks for none and for shared frames, which are no page
    /// numbers. `None` beyond the table's end.
    fn entry(&self, frame: Mfn) -> Option<u64>;
}

/// A table in memory: frame 0 first.
impl MachineToPfn for [u64] {
    fn entry(&self, frame: Mfn) -> Option<u64> {
        usize::try_from(frame.0).ok().and_then(|index| self.get(index)).copied()
    }
}

/// As what it points to.
impl<M: MachineToPfn + ?Sized> MachineToPfn for &M {
    fn entry(&self, frame: Mfn) -> Option<u64> {
        (**self).entry(frame)
    }
}

/// A guest's table of its pages and Xen's table of all frames, believed only where they agree: the guest can write what it likes
/// into its own, and Xen's does not say whose a frame is.
///
/// ```
/// use colo_core::ids::{Mfn, Pfn};
/// use colo_core::xen::pv::{FrameToPfn, GuestWidth, Physmap, RestoredP2m};
///
/// let mut p2m = RestoredP2m::new(GuestWidth::Bits64, 2);
/// p2m.grow(2)?;
/// p2m.set_frame(Pfn(0), Mfn(3))?;
/// let m2p = [u64::MAX, 1, 0, 0]; // frame 2 is page 0 of somebody else, frame 1 is page 1 of whomever
/// let physmap = Physmap::new(&p2m, m2p.as_slice());
/// assert_eq!(physmap.pfn_of(Mfn(3)), Some(Pfn(0)));
/// assert_eq!((physmap.pfn_of(Mfn(2)), physmap.pfn_of(Mfn(1)), physmap.pfn_of(Mfn(9))), (None, None, None));
/// # Ok::<(), colo_core::xen::pv::RestoredP2mError>(())
/// ```
#[derive(Debug)]
pub struct Physmap<'a, P: ?Sized, M: ?Sized> {
    p2m: &'a P,
    m2p: &'a M,
}

impl<'a, P: PfnToFrame + ?Sized, M: MachineToPfn + ?Sized> Physmap<'a, P, M> {
    /// Both tables together.
    pub fn new(p2m: &'a P, m2p: &'a M) -> Self {
        Physmap { p2m, m2p }
    }

    /// The guest's table alone.
    pub fn p2m(&self) -> &'a P {
        self.p2m
    }
}

impl<P: PfnToFrame + ?Sized, M: MachineToPfn + ?Sized> FrameToPfn for Physmap<'_, P, M> {
    fn pfn_of(&self, frame: Mfn) -> Option<Pfn> {
        let pfn = Pfn(self.m2p.entry(frame)?);
        (self.p2m.frame_of(pfn)? == frame).then_some(pfn)
    }
}

impl<P: PfnToFrame + ?Sized, M: MachineToPfn + ?Sized> PfnToFrame for Physmap<'_, P, M> {
    fn frame_of(&self, pfn: Pfn) -> Option<Mfn> {
        let frame = self.p2m.frame_of(pfn)?;
        (self.m2p.entry(frame)? == pfn.0).then_some(frame)
    }

    fn pfn_limit(&self) -> u64 {
        self.p2m.pfn_limit()
    }
}
