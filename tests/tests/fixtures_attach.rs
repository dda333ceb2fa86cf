//! Loading and attaching the XDP program: what works, and what an operator is told where it does not.

use hairpin::datapath::program::{AttachMode, Capacities, Program, ProgramError};
use hairpin_tests::program::bench::Bench;
use rustix::thread::{UnshareFlags, unshare_unsafe};

fn load() -> Program {
    Program::load(Capacities { records: 1, allocations: 1 }, true).expect("BPF and the right to use it")
}

/// Runs a test in a network namespace of its own, which has nothing but loopback and ends with its thread.
fn in_a_namespace(test: fn()) {
    if Bench::or_skip().is_none() {
        return;
    }
    let thread = std::thread::spawn(move || {
        #[allow(unsafe_code, reason = "unshare(2): a network namespace has no influence on memory or descriptors")]
        // SAFETY: as said.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("the right to make a network namespace");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn an_interface_holds_one_program_until_it_is_dropped() {
    in_a_namespace(|| {
        let (mut first, mut second) = (load(), load());
        first.attach("lo", AttachMode::Generic).expect("generic mode works everywhere");
        let refused = second.attach("lo", AttachMode::Generic);
        assert!(matches!(&refused, Err(ProgramError::Busy(name)) if name == "lo"), "{refused:?}");
        drop(first);
        second.attach("lo", AttachMode::Generic).expect("the first is gone, with its program");
    });
}

#[test]
fn a_driver_without_native_mode_is_named() {
    in_a_namespace(|| {
        let refused = load().attach("lo", AttachMode::Native).expect_err("loopback has no driver for it");
        assert!(matches!(refused, ProgramError::NativeRefused { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains("driver of lo") && text.contains("--xdp generic"), "{text}");
    });
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    in_a_namespace(|| {
        for name in ["nosuch0", "", "a\0b", "a-name-that-is-much-too-long-for-linux"] {
            let refused = load().attach(name, AttachMode::Generic);
            assert!(matches!(&refused, Err(ProgramError::UnknownInterface(named)) if named == name), "{refused:?}");
        }
    });
}

#[test]
fn maps_are_handed_out_once() {
    if Bench::or_skip().is_none() {
        return;
    }
    let mut program = load();
    program.take_maps().expect("the first time");
    assert!(matches!(program.take_maps(), Err(ProgramError::MapsTaken)));
}
