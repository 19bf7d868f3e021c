//! Any bytes are a checkpoint file or are refused; what is read can be written and read again.
#![no_main]

use feedline::checkpoint::file::image;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(newest) = image::newest(bytes) else { return };
    let _fault = image::other_slot_fault(bytes, &newest);
    let again = image::write(newest.generation, newest.slot_bytes, newest.payload);
    let read = image::newest(&again).expect("what was written is read");
    assert_eq!((read.generation, read.payload), (newest.generation, newest.payload));
});
