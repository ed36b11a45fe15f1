/*
 * function: the registers of a CXL function, which a program maps by the files that sysfs has for it, and commands by its
 * mailboxes. Comes after bare.h. Where a driver has the function, the kernel lets a program at its registers with
 * `iomem=relaxed` only.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum {
    SYS_READ = 0, SYS_CLOSE = 3, SYS_SEEK = 8, SYS_MMAP_ = 9, SYS_SLEEP = 35,
    O_RDONLY_ = 0, O_WRONLY_ = 1, O_SYNC_ = 0x101000, SEEK_END_ = 2, READ_WRITE = 3, SHARED = 1,
    DVSEC = 0x23, VENDOR = 0x1E98, LOCATOR = 8, /* CXL 3.1 8.1: the Register Locator DVSEC */
    COMPONENT_BLOCK = 1, DEVICE_BLOCK = 3,
    PRIMARY = 2, SECONDARY = 3, /* capability IDs of mailboxes */
    MAILBOX_CONTROL = 4, MAILBOX_COMMAND = 8, MAILBOX_STATUS = 16, MAILBOX_PAYLOAD = 32,
    MAILBOX_ROOM = 1 << 20, MAILBOX_TRIES = 10000
};

static u32 config[1024];
static char path[512];

static u64 append(u64 at, const char *text)
{
    u64 i;
    for (i = 0; text[i]; i++) {
        if (at + 2 > sizeof path)
            fail("a file's name is too long");
        path[at++] = text[i];
    }
    path[at] = 0;
    return at;
}

static long open_in(const char *folder, const char *file, int flags)
{
    append(append(append(0, folder), "/"), file);
    return sys(SYS_OPEN, (u64)path, flags, 0, 0, 0, 0);
}

static u32 get(volatile u8 *at)
{
    return *(volatile u32 *)at;
}

static void put(volatile u8 *at, u32 value)
{
    *(volatile u32 *)at = value;
}

/* the entry of the Register Locator for a kind of block: the BAR in bits 2:0, the offset above 15 */
static u32 located(const char *folder, u32 block)
{
    u32 at = 64, end, entry;
    long from = open_in(folder, "config", O_RDONLY_);
    if (from < 0 || sys(SYS_READ, from, (u64)config, sizeof config, 0, 0, 0) < 0)
        fail("the function's configuration space cannot be read");
    sys(SYS_CLOSE, from, 0, 0, 0, 0, 0);
    while (at && config[at]) {
        if ((config[at] & 0xffff) == DVSEC && (config[at + 1] & 0xffff) == VENDOR && (config[at + 2] & 0xffff) == LOCATOR) {
            end = at + (config[at + 1] >> 22);
            for (entry = at + 3; entry < end; entry += 2)
                if ((config[entry] >> 8 & 0xff) == block)
                    return config[entry];
        }
        at = config[at] >> 22;
    }
    fail("the function's configuration space does not locate these registers");
    return 0;
}

/* where a kind of register block is, now in this process */
static volatile u8 *registers(const char *folder, u32 block)
{
    char file[] = "resource0";
    u32 entry = located(folder, block);
    long from = open_in(folder, "enable", O_WRONLY_), size, at;
    if (from >= 0) {
        sys(SYS_WRITE, from, (u64) "1", 1, 0, 0, 0);
        sys(SYS_CLOSE, from, 0, 0, 0, 0, 0);
    }
    file[8] += entry & 7;
    from = open_in(folder, file, O_RDWR_ | O_SYNC_);
    size = from < 0 ? from : sys(SYS_SEEK, from, 0, SEEK_END_, 0, 0, 0);
    at = size < 0 ? size : sys(SYS_MMAP_, 0, size, READ_WRITE, SHARED, from, 0);
    if (at < 0 && at > -4096)
        fail("the function's registers cannot be mapped: where a driver has it, the kernel wants iomem=relaxed");
    return (volatile u8 *)at + (entry & 0xffff0000);
}

/* a mailbox, by its capability ID, in a block of device registers; 0 where there is none */
static volatile u8 *mailbox_in(volatile u8 *block, u32 capability)
{
    u64 i;
    for (i = 1; i <= (get(block + 4) & 0xffff); i++)
        if ((get(block + 16 * i) & 0xffff) == capability)
            return block + get(block + 16 * i + 4);
    return 0;
}

static void nap(void)
{
    u64 pause[2] = {0, 1000000};
    sys(SYS_SLEEP, (u64)pause, 0, 0, 0, 0, 0);
}

/* 1 when the mailbox takes a command, or has answered one; 0 where it does not within 10 s */
static int settled(volatile u8 *mailbox)
{
    int n;
    for (n = 0; n < MAILBOX_TRIES; n++) {
        if (!(get(mailbox + MAILBOX_CONTROL) & 1))
            return 1;
        nap();
    }
    return 0;
}

/* the return code; the answer is in `payload` then, and *size is its length. -110: the mailbox does not answer */
static long command_by(volatile u8 *mailbox, u32 opcode, u8 *payload, u64 *size)
{
    u64 i;
    if (*size > 1UL << (get(mailbox) & 31))
        fail("the payload is longer than the mailbox's");
    if (!settled(mailbox))
        return -110;
    put(mailbox + MAILBOX_COMMAND, opcode | *size << 16);
    put(mailbox + MAILBOX_COMMAND + 4, *size >> 16);
    for (i = 0; i < *size; i++)
        mailbox[MAILBOX_PAYLOAD + i] = payload[i];
    put(mailbox + MAILBOX_CONTROL, 1);
    if (!settled(mailbox))
        return -110;
    *size = get(mailbox + MAILBOX_COMMAND) >> 16 | (get(mailbox + MAILBOX_COMMAND + 4) & 31) << 16;
    for (i = 0; i < *size; i++)
        payload[i] = mailbox[MAILBOX_PAYLOAD + i];
    return get(mailbox + MAILBOX_STATUS + 4) & 0xffff;
}
