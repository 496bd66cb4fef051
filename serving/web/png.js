// Masks as PNG files of one bit a pixel, written here because a canvas would need 32 times the memory.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** A PNG of a mask, white where `bits` (row by row) is not 0, as a Blob. */
export async function encodeMask({ bits, width, height }) {
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 1); // bits a pixel; the rest is 0: grey, deflate, no interlacing
  const parts = [chunk("IHDR", new Uint8Array(header.buffer)), chunk("IDAT", await deflate(pack(bits, width, height)))];
  return new Blob([new Uint8Array(SIGNATURE), ...parts, chunk("IEND", new Uint8Array())], { type: "image/png" });
}

function pack(bits, width, height) {
  const stride = 1 + Math.ceil(width / 8); // each row starts with its filter: 0, none
  const rows = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (bits[y * width + x]) rows[y * stride + 1 + (x >> 3)] |= 0x80 >> (x & 7);
    }
  }
  return rows;
}

async function deflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function chunk(type, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/** CRC-32 as PNG wants it (ISO 3309). */
function crc(bytes) {
  let value = ~0;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return ~value >>> 0;
}
