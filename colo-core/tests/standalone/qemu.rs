//! Real QEMU on both hosts: its filters feed the comparator, and take what it lets out.
