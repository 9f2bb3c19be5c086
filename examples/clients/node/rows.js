// What each example writes and reads: text, JSON and bytes, with NULLs and empty values.
export const rows = [
  { id: 1, diagnosis: 'asthma', record: { since: 2019 }, photo: Buffer.from('ffd8', 'hex') },
  { id: 2, diagnosis: '', record: null, photo: Buffer.alloc(0) },
  { id: 3, diagnosis: null, record: { a: [1, null] }, photo: null },
];
