//! Bindings of Xen's C libraries (`libxenctrl` and its kin), loaded at run time, so that one binary runs on hosts with and
//! without Xen.
//!
//! Only what the headers declare will live here: no logic. The safe handles over these bindings belong to `colo-core`.
