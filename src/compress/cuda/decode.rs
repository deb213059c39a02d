//! Payloads that came from elsewhere: the host reads header and table, the GPU checks and adds the rest.

use super::accumulate::grid;
use super::payload::{HEAD_WORDS, Sent, Sign, add};
use super::staged::{Staged, grow};
use crate::compress::coding::{CodingError, Payload};
use crate::device::cuda::{CudaDevice, CudaError, ViewMut};
use crate::error::Result;
use crate::train::config::ValueCoding;

const WHAT: &str = "received payloads";

/// Room for one payload, grown as needed.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: Staged<u8>,
    heads: Staged<u32>,
    offsets: Staged<i64>,
    first: Staged<i64>,
    invalid: Staged<u32>,
    elements: Sent,
}

impl Decoder {
    /// Adds a payload to `sum`; nothing is added unless all of it is valid. Waits once.
    pub fn add(&mut self, device: &CudaDevice, bytes: &[u8], sum: ViewMut<'_, f32>) -> Result<()> {
        let payload = Payload::outline(bytes)?;
        if payload.numel() != sum.len() {
            let (payload, found) = (Payload::parse(bytes)?.numel(), sum.len());
            return Err(CodingError::Length { payload, found }.into());
        }
        if payload.num_kept() == 0 {
            return Ok(());
        }
        let queued = self.queue(device, &payload, bytes, sum);
        // Whatever was refused: copies queued before it read memory that the next call writes.
        let waited = device.synchronize();
        queued?;
        waited?;
        match self.invalid.host()[0] {
            0 => Ok(()),
            // The same rules once more on the host, which names the first thing that is wrong.
            _ => Err(Payload::parse(bytes).expect_err("the GPU refused this payload").into()),
        }
    }

    fn queue(
        &mut self,
        device: &CudaDevice,
        payload: &Payload<'_>,
        bytes: &[u8],
        sum: ViewMut<'_, f32>,
    ) -> std::result::Result<(), CudaError> {
        let (blocks, kept) = (payload.heads().count(), payload.num_kept());
        self.heads.grow(device, HEAD_WORDS * blocks, WHAT)?;
        self.offsets.grow(device, blocks, WHAT)?;
        self.first.grow(device, blocks + 1, WHAT)?;
        self.invalid.grow(device, 1, WHAT)?;
        let body: usize = payload.heads().map(|head| head.bytes(payload.values())).sum();
        self.bytes.grow(device, body, WHAT)?;
        grow(&mut self.elements.positions, device, kept, WHAT)?;
        grow(&mut self.elements.values, device, kept, WHAT)?;

        let (mut offset, mut before) = (0, 0);
        for (block, head) in payload.heads().enumerate() {
            let words = [head.kept as u32, u32::from(head.bitmap), head.index_bytes as u32];
            self.heads.host_mut()[HEAD_WORDS * block..][..HEAD_WORDS].copy_from_slice(&words);
            self.offsets.host_mut()[block] = offset;
            self.first.host_mut()[block] = before;
            offset += head.bytes(payload.values()) as i64;
            before += head.kept as i64;
        }
        self.first.host_mut()[blocks] = before;
        self.bytes.host_mut()[..body].copy_from_slice(&bytes[bytes.len() - body..]);
        // SAFETY: `add` waits before it returns, also where something fails behind this.
        unsafe {
            self.heads.queue_upload(device, HEAD_WORDS * blocks)?;
            self.offsets.queue_upload(device, blocks)?;
            self.first.queue_upload(device, blocks + 1)?;
            self.bytes.queue_upload(device, body)?;
        }
        device.fill_zero(self.invalid.view_mut(0..1))?;

        let (Some(positions), Some(values)) = (&mut self.elements.positions, &mut self.elements.values)
        else {
            unreachable!("room was just made");
        };
        let mut launch = device.launch("coding_read")?;
        launch.output(&mut positions.view_mut()).output(&mut values.view_mut());
        launch.output(&mut self.invalid.view_mut(0..1)).input(&self.bytes.view(body));
        launch.input(&self.offsets.view(blocks)).input(&self.heads.view(HEAD_WORDS * blocks));
        launch.input(&self.first.view(blocks + 1)).scalar(payload.numel() as i64);
        launch.scalar(i32::from(payload.values() == ValueCoding::Bf16));
        let shapes = || format!("payload of {kept} elements of {}", payload.numel());
        // SAFETY: the arguments are the kernel's, in order and type; the table, which was checked, fits the bytes and the
        // elements, and the kernel writes no more of a block than its head states.
        unsafe { launch.run(grid(blocks, 256), shapes) }?;
        let elements = (positions.view().slice(..kept), values.view().slice(..kept));
        add(
            device,
            sum,
            Sign::Plus,
            elements,
            self.first.view(blocks + 1),
            None,
            Some(self.invalid.view(1)),
        )?;
        // SAFETY: `add` waits before it reads.
        unsafe { self.invalid.queue_download(device, 1) }
    }
}
