/*
 * cci: gives a switch any command through its mailbox CCI, whose registers it maps: no driver of the kernel does. Needs no
 * C library; builds with gcc and tcc.
 *
 *   cci FOLDER OPCODE [PAYLOAD]
 *
 * FOLDER is the function's, such as /sys/bus/pci/devices/0000:0e:00.0, OPCODE a number, PAYLOAD hexadecimal bytes. Prints
 * the return code, a space, and the answer in hexadecimal. Any function with a mailbox that no driver has will do. Status
 * 1: the mailbox did not answer within 10 s. Status 2: wrong usage, or there is no mailbox.
 */
#define PROGRAM "cci"
#include "bare.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum {
    READ = 0, WRITE = 1, SEEK = 8, MMAP = 9, NANOSLEEP = 35, O_WRONLY_ = 1, O_SYNC_ = 0x101000, END = 2,
    DVSEC = 0x23, CXL = 0x1E98, LOCATOR = 8, DEVICE = 3, MAILBOX = 2, /* CXL: DVSEC, block and capability IDs */
    CONTROL = 4, COMMAND = 8, STATUS = 16, PAYLOAD = 32, ROOM = 1 << 20, TRIES = 10000
};

static u32 config[1024];
static u8 payload[ROOM];
static char text[2 * ROOM + 1], path[512];

static long open_in(const char *folder, const char *file, int flags)
{
    u64 at = 0, i;
    if (length(folder) + length(file) + 2 > sizeof path)
        fail("the folder's name is too long");
    for (i = 0; folder[i]; i++)
        path[at++] = folder[i];
    path[at++] = '/';
    for (i = 0; file[i]; i++)
        path[at++] = file[i];
    path[at] = 0;
    return sys(SYS_OPEN, (u64)path, flags, 0, 0, 0, 0);
}

/* the entry of the Register Locator for device registers: the BAR in bits 2:0, the offset above 15 */
static u32 located(void)
{
    u32 at = 64, end, entry;
    while (at && config[at]) {
        if ((config[at] & 0xffff) == DVSEC && (config[at + 1] & 0xffff) == CXL && (config[at + 2] & 0xffff) == LOCATOR) {
            end = at + (config[at + 1] >> 22);
            for (entry = at + 3; entry < end; entry += 2)
                if ((config[entry] >> 8 & 0xff) == DEVICE)
                    return config[entry];
        }
        at = config[at] >> 22;
    }
    fail("the function's configuration space locates no device registers");
    return 0;
}

static volatile u8 *mapped(const char *folder)
{
    char file[] = "resource0";
    u32 entry;
    long from = open_in(folder, "config", 0), enable, size, at;
    if (from < 0 || sys(READ, from, (u64)config, sizeof config, 0, 0, 0) < (long)sizeof config)
        fail("the function's configuration space cannot be read");
    entry = located();
    enable = open_in(folder, "enable", O_WRONLY_);
    if (enable >= 0)
        sys(WRITE, enable, (u64) "1", 1, 0, 0, 0);
    file[8] += entry & 7;
    from = open_in(folder, file, O_RDWR_ | O_SYNC_);
    size = from < 0 ? from : sys(SEEK, from, 0, END, 0, 0, 0);
    at = size < 0 ? size : sys(MMAP, 0, size, 3, 1, from, 0);
    if (at < 0 && at > -4096)
        fail("the function's registers cannot be mapped");
    return (volatile u8 *)at + (entry & 0xffff0000);
}

static u32 get(volatile u8 *at)
{
    return *(volatile u32 *)at;
}

static void settled(volatile u8 *mailbox)
{
    u64 pause[2] = {0, 1000000};
    int n;
    for (n = 0; n < TRIES; n++) {
        if (!(get(mailbox + CONTROL) & 1))
            return;
        sys(NANOSLEEP, (u64)pause, 0, 0, 0, 0, 0);
    }
    say(1, "-110\n");
    leave(1);
}

void start(u64 *stack)
{
    u64 count = stack[0], size, i;
    char **word = (char **)(stack + 1);
    volatile u8 *registers, *mailbox = 0;
    if (count < 3 || count > 4)
        fail("usage: FOLDER OPCODE [PAYLOAD]");
    size = count > 3 ? bytes(word[3], payload, ROOM) : 0;
    registers = mapped(word[1]);
    for (i = 1; i <= (get(registers + 4) & 0xffff); i++)
        if ((get(registers + 16 * i) & 0xffff) == MAILBOX)
            mailbox = registers + get(registers + 16 * i + 4);
    if (!mailbox)
        fail("the device registers have no mailbox");
    if (size > 1UL << (get(mailbox) & 31))
        fail("the payload is longer than the mailbox's");
    settled(mailbox);
    *(volatile u32 *)(mailbox + COMMAND) = number(word[2]) | size << 16;
    *(volatile u32 *)(mailbox + COMMAND + 4) = size >> 16;
    for (i = 0; i < size; i++)
        mailbox[PAYLOAD + i] = payload[i];
    *(volatile u32 *)(mailbox + CONTROL) = 1;
    settled(mailbox);
    size = get(mailbox + COMMAND) >> 16 | (get(mailbox + COMMAND + 4) & 31) << 16;
    for (i = 0; i < size; i++)
        payload[i] = mailbox[PAYLOAD + i];
    say_number(1, get(mailbox + STATUS + 4) & 0xffff, 10);
    say(1, " ");
    say_bytes(1, payload, size, text);
    say(1, "\n");
    leave(0);
}
