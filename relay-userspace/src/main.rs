//! A TURN relay that forwards in the kernel.

fn main() {}
