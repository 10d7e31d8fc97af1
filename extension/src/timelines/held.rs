//! Bytes of a row that are still needed when the query has gone on to the next one: a value in a page of shared buffers stays
//! where it lies, with a pin of its own on the page, which nobody moves meanwhile; any other is copied.

use pgrx::pg_sys::{self, Buffer};

/// The bytes of one value, and memory for the next one.
#[derive(Default)]
pub struct Held {
    copied: Vec<u8>,
    pinned: Option<(Buffer, *const [u8])>,
}

impl Held {
    /// Keeps bytes in place of those before.
    ///
    /// # Safety
    /// The bytes must be a value of the row that a query is handing out, and these be let go before its transaction, or a
    /// portal of its, ends.
    pub unsafe fn hold(&mut self, bytes: &[u8]) {
        self.clear();
        let Some(buffer) = buffer_of(bytes) else { return self.copied.extend_from_slice(bytes) };
        // SAFETY: the query has a pin on the page of its row, so this adds one to it.
        unsafe { pg_sys::IncrBufferRefCount(buffer) };
        self.pinned = Some((buffer, bytes));
    }

    /// Lets them go.
    pub fn clear(&mut self) {
        self.copied.clear();
        if let Some((buffer, _)) = self.pinned.take() {
            // SAFETY: the pin that was added; nobody has the bytes any more.
            unsafe { pg_sys::ReleaseBuffer(buffer) };
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // After an error the transaction lets all pins go, of which it knows better than we do.
        if !std::thread::panicking() {
            self.clear();
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        match self.pinned {
            // SAFETY: they lie in a page that is pinned until `clear`, which needs `self` for itself.
            Some((_, bytes)) => unsafe { &*bytes },
            None => &self.copied,
        }
    }
}

/// The shared buffer in which bytes lie, if they do: those of a temporary table, and what was detoasted, do not.
fn buffer_of(bytes: &[u8]) -> Option<Buffer> {
    // SAFETY: both are set when the server starts and never change.
    let (first, count) = unsafe { (pg_sys::BufferBlocks as usize, pg_sys::NBuffers as usize) };
    let number = (bytes.as_ptr() as usize).checked_sub(first)? / pg_sys::BLCKSZ as usize;
    (number < count).then_some(number as Buffer + 1)
}
