/* SPDX-License-Identifier: Apache-2.0
 *
 * The front of a CXL region that is SoftCXL's memory pool: what a guest finds in the first 2 MiB of a pool-memory
 * device's memory, which it maps as device DAX. For programs in a guest; the layout of the arena is softcxl_pool.h.
 *
 * All is little-endian, and ordinary shared memory. The table has a piece for each source of the pool, by its number as
 * in pool addresses; the first is the arena.
 *
 * To ask the server: exchange the word of a cell from 0 to OWNER << 8 | SCXL_CELL_CLAIMED, OWNER being a random number
 * other than 0. Write the request behind the cell's head, then slot, opcode and length; have the word be OWNER << 8 |
 * SCXL_CELL_ASKED by another exchange, which fails where the cell was taken back, after 5 seconds. Read the word until it
 * is OWNER << 8 | SCXL_CELL_ANSWERED: the answer is where the request was, with length and status; then have it be 0. The
 * first thing to ask is HELLO, whose answer has the slot.
 *
 * To sleep on a word of the arena: set bit 1 of the word (`scxl_sleepers`), and look at what you wait for now and then.
 * To wake: clear bits 0 and 1 of the word and count it up above them, as scxl_wakes does; where one was set, exchange a bell
 * that is 0 for the word's offset / 8 + 1.
 *
 * `beat` goes up while somebody looks, once in 20 ms at least. The end of the region, and the guest's restart or end, give
 * all slots back that the guest had.
 */
#ifndef SOFTCXL_FRONT_H
#define SOFTCXL_FRONT_H

#define SCXL_FRONT_MAGIC 0x4d454d504c584353ull /* "SCXLPMEM" */
#define SCXL_FRONT_VERSION 1
#define SCXL_FRONT_SIZE 0x200000        /* and what all pieces' places are multiples of */
#define SCXL_FRONT_DEVICE_ID 0x5c03     /* of the PCI function, whose vendor is 1e98h */

struct scxl_front {
	unsigned long long magic;
	unsigned int version;
	unsigned int ready;      /* 1: a server answers */
	unsigned long long size; /* that the region has to have, in bytes */
	unsigned long long beat;
	/* where what is, in bytes from the front's start, and how many there are */
	unsigned int table, entries;
	unsigned int bells, bell_count; /* u64 each */
	unsigned int words, cells;      /* a u64 each; SCXL_CELL_SIZE bytes each */
	unsigned int cell_count, cell_size;
};

struct scxl_piece {
	unsigned long long offset; /* from the region's start, in bytes */
	unsigned long long size;   /* 0: there is none of that number */
	char name[48];             /* UTF-8, padded with NULs */
};

enum scxl_cell_state { SCXL_CELL_FREE, SCXL_CELL_CLAIMED, SCXL_CELL_ASKED, SCXL_CELL_ANSWERED };

#define SCXL_CELL_SIZE 0x1000

struct scxl_cell {
	unsigned int slot;
	unsigned int opcode;
	unsigned int length;
	unsigned int status; /* 0, or what went wrong, and a sentence is the answer */
	unsigned int reserved[12];
	char payload[SCXL_CELL_SIZE - 64];
};

#endif
