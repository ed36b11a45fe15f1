/* SPDX-License-Identifier: Apache-2.0
 *
 * SoftCXL's pool access device: a PCI slot by which a guest reaches the memory pool. For drivers, in a kernel or in
 * user space; the layout of the memory itself is softcxl_pool.h.
 *
 * Function 0 has the registers below in BAR 0 (32 bits wide where nothing else is said, little-endian). Functions 1 and
 * up have memory in their 64-bit prefetchable BARs 0, 2 and 4: map it cached, it is ordinary shared memory.
 *
 * To ask the server: take a lock of your own, write the request to the payload, then SLOT, LENGTH and, last, COMMAND;
 * read RESULT until it is not busy; its upper half is 0 and the answer is in the payload, or it says what went wrong and
 * a sentence is there. LENGTH is the length of the answer. The first thing to ask is HELLO, whose answer has the slot.
 *
 * To sleep on a word of the arena: enable the word's vector, set bit 1 of the word (`scxl_sleepers`), look once more at
 * what you wait for, and wait for the interrupt. Vectors are shared: look again when woken.
 * To wake: clear bits 0 and 1 of the word and count it up above them, as scxl_wakes does; where one was set, write the word's
 * offset / 8 to DOORBELL. Bit 0 are sleepers of the host.
 *
 * Interrupts: MSI, 32 vectors; or INTx, for which write ACKNOWLEDGE when one has come and then clear Interrupt Disable
 * in the Command register, which whoever took the interrupt (uio_pci_generic, for one) has set.
 *
 * The guest's restart or end gives all slots back that the guest had.
 */
#ifndef SOFTCXL_ACCESS_H
#define SOFTCXL_ACCESS_H

#define SCXL_ACCESS_VENDOR 0x1e98
#define SCXL_ACCESS_CONTROL_ID 0x5c01 /* function 0 */
#define SCXL_ACCESS_MEMORY_ID 0x5c02  /* functions 1 and up */

#define SCXL_ACCESS_MAGIC 0x524f4f444c584353ull /* "SCXLDOOR" */
#define SCXL_ACCESS_VERSION 1

enum scxl_access_register {
	SCXL_ACCESS_REG_MAGIC = 0x00,        /* 64 bits */
	SCXL_ACCESS_REG_VERSION = 0x08,
	SCXL_ACCESS_REG_STATUS = 0x0c,       /* bit 0: a server answers */
	SCXL_ACCESS_REG_CAPABILITIES = 0x10, /* 7:0 memories, 15:8 vectors, 31:16 bytes of payload */
	SCXL_ACCESS_REG_DOORBELL = 0x20,     /* offset in the arena / 8 */
	SCXL_ACCESS_REG_ACKNOWLEDGE = 0x24,
	SCXL_ACCESS_REG_ENABLE = 0x28,       /* one bit a vector, set by writing ones, cleared by a reset */
	SCXL_ACCESS_REG_CAUSE = 0x2c,        /* one bit a vector, cleared by writing ones */
	SCXL_ACCESS_REG_COMMAND = 0x40,      /* opcode */
	SCXL_ACCESS_REG_RESULT = 0x44,       /* bit 0: busy, 31:16 status */
	SCXL_ACCESS_REG_SLOT = 0x48,
	SCXL_ACCESS_REG_LENGTH = 0x4c,
	SCXL_ACCESS_PAYLOAD = 0x100,
	SCXL_ACCESS_TABLE = 0x800,           /* struct scxl_access_memory for each memory; the first is the arena */
};

#define SCXL_ACCESS_STATUS_READY 0x1u
#define SCXL_ACCESS_RESULT_BUSY 0x1u
#define SCXL_ACCESS_PAYLOAD_SIZE 0x400

/* An entry of the table. `place`: 2:0 function, 10:8 BAR, 31:16 source, as in pool addresses. */
struct scxl_access_memory {
	unsigned long long size; /* in bytes; the BAR is the next power of two */
	unsigned int place;
	unsigned int reserved;
	char name[48]; /* UTF-8, padded with NULs */
};

#define SCXL_ACCESS_VECTORS 32
#define SCXL_ACCESS_NEWS 0 /* the vector of news from the server */

/* The vector, 1 to 31, that tells of the word at `offset` bytes of the arena. */
static inline unsigned int scxl_access_vector(unsigned long long offset)
{
	return 1 + (unsigned int)(offset / 64 % (SCXL_ACCESS_VECTORS - 1));
}

#endif
