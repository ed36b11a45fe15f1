/*
 * extents: uses dynamic capacity in a guest whose kernel has no driver for it (Linux has none up to 7.2). Needs no C
 * library; builds with gcc and tcc.
 *
 *   extents DEVICE WINDOW answer [SECONDS]          take what is offered, give back what is asked for; with SECONDS
 *                                                   wait so long for the first of it
 *   extents DEVICE WINDOW list                      what the host has now
 *   extents DEVICE WINDOW release TAG               give back all with this tag
 *   extents DEVICE WINDOW write TAG OFFSET TEXT     store TEXT
 *   extents DEVICE WINDOW read TAG OFFSET COUNT     show COUNT bytes, and a newline
 *
 * DEVICE is such as mem0, WINDOW the root decoder of the window that shows the device's dynamic capacity, such as
 * decoder0.1. TAG is a UUID, as `list` prints it. Prints a line for each extent: for `list` its host address, its length,
 * tag and place among those of the tag; for `answer` "took", "gave" or "lost" (by force) before that. OFFSET counts from
 * the first byte of the tag's first extent on through its others.
 *
 * What is the kernel's: it has found the device and the window, and its driver is bound. What is this program's: offers
 * are read from the device's event log, which the kernel leaves alone, and answered by commands: the kernel's raw ones
 * where it has them (CONFIG_CXL_MEM_RAW_COMMANDS), else by the device's secondary mailbox. While the host has an extent the
 * device's next decoder shows all of its dynamic capacity at the window's start; regions of the kernel's on that device
 * are made before or after that, not meanwhile.
 * Registers are mapped by sysfs files, memory by /dev/mem. The host bridge's decoders are left as they are; a guest's
 * window is memory whatever they say. A machine that is more than a guest would need them set, too.
 *
 * Status 1: there is no such extent, or nothing came in time. Status 2: wrong usage, or what it takes is not there.
 * Numbers are decimal or 0x hexadecimal.
 */
#define PROGRAM "extents"
#include "bare.h"
#include "function.h"

/* include/uapi/linux/cxl_mem.h: struct cxl_send_command, CXL_MEM_SEND_COMMAND, the kernel's number for raw ones */
struct send_command {
    u32 id, flags;
    u16 opcode, reserved;
    u32 result;
    int in_size;
    u32 in_reserved;
    u64 in_payload;
    int out_size;
    u32 out_reserved;
    u64 out_payload;
};
enum {
    SEND_COMMAND = 0xC030CE02U, RAW = 2, ROOM = 4096,
    GET_EVENTS = 0x0100, CLEAR_EVENTS = 0x0101, LOG = 4,
    GET_CONFIGURATION = 0x4800, GET_EXTENTS = 0x4801, ADD_RESPONSE = 0x4802, RELEASE = 0x4803,
    COMMIT = 1 << 9, COMMITTED = 1 << 10, REFUSED = 1 << 11, HOST_ONLY = 1 << 12, /* of a decoder's control register */
    MOST = 100, /* extents in one command */
    PAGE = 4096
};
#define UNIT (256UL << 20)

struct extent {
    u64 start, length;
    u8 tag[16];
    u64 sequence;
};

static char folder[128], device_file[64];
static u8 payload[ROOM];
static struct extent group[MOST], held[512];
static u64 grouped, held_count, window_start, window_size, dynamic_start, dynamic_size, acted;
static volatile u8 *second;
static long raw_file = -1;

static u64 field(const u8 *at, int size)
{
    u64 value = 0;
    while (size--)
        value = value << 8 | at[size];
    return value;
}

static void set_field(u8 *at, int size, u64 value)
{
    int i;
    for (i = 0; i < size; i++, value >>= 8)
        at[i] = value;
}

static void copy(u8 *to, const u8 *from, u64 count)
{
    while (count--)
        *to++ = *from++;
}

/* ---- commands */

static long raw(u32 opcode, u64 size)
{
    static u8 answer[ROOM];
    struct send_command one;
    long error;
    memset(&one, 0, sizeof one);
    one.id = RAW;
    one.opcode = opcode;
    one.in_size = size;
    one.in_payload = (u64)payload;
    one.out_size = ROOM;
    one.out_payload = (u64)answer;
    error = sys(SYS_IOCTL, raw_file, SEND_COMMAND, (u64)&one, 0, 0, 0);
    if (error < 0)
        return error;
    copy(payload, answer, ROOM);
    return one.result;
}

/* the return code of a command whose input is in `payload`, where its answer is then */
static long command(u32 opcode, u64 size)
{
    if (!second)
        return raw(opcode, size);
    return command_by(second, opcode, payload, &size);
}

static void must(long code, const char *what)
{
    if (!code)
        return;
    say(2, PROGRAM ": ");
    say(2, what);
    say(2, ": return code ");
    say_number(2, code < 0 ? -code : code, 10);
    say(2, code < 0 ? ", negative\n" : "\n");
    leave(2);
}

/* by which way commands go, and where dynamic capacity is */
static void begin(void)
{
    u64 i, count;
    long code = -1;
    raw_file = sys(SYS_OPEN, (u64)device_file, O_RDWR_, 0, 0, 0, 0);
    set_field(payload, 2, 8);
    if (raw_file >= 0)
        code = raw(GET_CONFIGURATION, 2);
    if (code < 0) {
        second = mailbox_in(registers(folder, DEVICE_BLOCK), SECONDARY);
        if (!second)
            fail("the kernel gives no raw commands, and the device has no secondary mailbox");
        set_field(payload, 2, 8);
        code = command(GET_CONFIGURATION, 2);
    }
    must(code, "the device has no dynamic capacity");
    count = payload[1];
    dynamic_start = field(payload + 8, 8);
    for (i = 0; i < count; i++)
        dynamic_size += field(payload + 8 + 40 * i + 8, 8) * UNIT;
}

/* ---- extents */

static void list_held(void)
{
    u64 total, count, i;
    held_count = 0;
    do {
        set_field(payload, 4, MOST);
        set_field(payload + 4, 4, held_count);
        must(command(GET_EXTENTS, 8), "the extents cannot be listed");
        count = field(payload, 4);
        total = field(payload + 4, 4);
        for (i = 0; i < count && held_count < 512; i++, held_count++) {
            u8 *at = payload + 16 + 40 * i;
            held[held_count].start = field(at, 8);
            held[held_count].length = field(at + 8, 8);
            copy(held[held_count].tag, at + 16, 16);
            held[held_count].sequence = field(at + 32, 2);
        }
    } while (count && held_count < total && held_count < 512);
}

static void say_extent(const char *what, const struct extent *one)
{
    char text[3];
    int i;
    say(1, what);
    say(1, "0x");
    say_number(1, window_start + (one->start - dynamic_start), 16);
    say(1, " 0x");
    say_number(1, one->length, 16);
    say(1, " ");
    for (i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            say(1, "-");
        say_bytes(1, one->tag + i, 1, text);
    }
    say(1, " ");
    say_number(1, one->sequence, 10);
    say(1, "\n");
}

/* Add Dynamic Capacity Response and Release Dynamic Capacity, for all of the group */
static long respond(u32 opcode)
{
    u64 i;
    memset(payload, 0, ROOM);
    set_field(payload, 4, grouped);
    for (i = 0; i < grouped; i++) {
        set_field(payload + 8 + 24 * i, 8, group[i].start);
        set_field(payload + 16 + 24 * i, 8, group[i].length);
    }
    return command(opcode, 8 + 24 * grouped);
}

static void tell(const char *what)
{
    u64 i;
    for (i = 0; i < grouped; i++)
        say_extent(what, group + i);
    acted += grouped;
}

/* one event record: a group of extents is dealt with when its last one has come */
static void event(const u8 *record)
{
    u8 kind = record[0x30], more = record[0x35] & 1;
    if (kind > 2)
        return;
    if (grouped < MOST) {
        group[grouped].start = field(record + 0x38, 8);
        group[grouped].length = field(record + 0x40, 8);
        copy(group[grouped].tag, record + 0x48, 16);
        group[grouped].sequence = field(record + 0x58, 2);
        grouped++;
    }
    if (more)
        return;
    if (kind == 0)
        tell(respond(ADD_RESPONSE) ? "too late for " : "took ");
    else if (kind == 1)
        tell(respond(RELEASE) ? "could not give " : "gave ");
    else
        tell("lost ");
    grouped = 0;
}

static void show(void);

static void answer_all(void)
{
    static u8 records[ROOM];
    u64 count, i;
    for (;;) {
        payload[0] = LOG;
        must(command(GET_EVENTS, 1), "the events cannot be read");
        count = field(payload + 20, 2);
        if (!count)
            return;
        copy(records, payload, ROOM);
        for (i = 0; i < count; i++)
            if (!records[32 + 128 * i + 0x30])
                show(); /* before an offer is taken, as the device may refuse */
        memset(payload, 0, ROOM);
        payload[0] = LOG;
        payload[2] = count;
        for (i = 0; i < count; i++)
            copy(payload + 6 + 2 * i, records + 32 + 128 * i + 20, 2);
        must(command(CLEAR_EVENTS, 6 + 2 * count), "the events cannot be cleared");
        for (i = 0; i < count; i++)
            event(records + 32 + 128 * i);
    }
}

/* ---- the decoder */

static u64 pair(volatile u8 *low)
{
    return get(low) | (u64)get(low + 4) << 32;
}

static void set_pair(volatile u8 *low, u64 value)
{
    put(low, value);
    put(low + 4, value >> 32);
}

/* the HDM decoder capability, in the component registers' second 4 KiB (CXL 3.1 8.2.4) */
static volatile u8 *decoders(void)
{
    volatile u8 *array = registers(folder, COMPONENT_BLOCK) + 0x1000;
    u32 i;
    for (i = 1; i <= get(array) >> 24; i++)
        if ((get(array + 4 * i) & 0xffff) == 5)
            return array + (get(array + 4 * i) >> 20);
    fail("the device has no HDM decoders");
    return 0;
}

static u32 count_of(volatile u8 *hdm)
{
    u32 coded = get(hdm) & 15;
    return coded ? 2 * coded : 1;
}

/* the decoder that is committed at the window's start, or the first one that is not committed, which may be beyond the
   last; *end is where the device addresses of those before it end */
static volatile u8 *decoder(volatile u8 *hdm, u64 *end)
{
    volatile u8 *one = hdm + 0x10, *last = one + 0x20 * count_of(hdm);
    u32 control, ways;
    *end = 0;
    for (; one < last; one += 0x20) {
        control = get(one + 0x10);
        if (!(control & COMMITTED) || pair(one) == window_start)
            break;
        ways = control >> 4 & 15;
        *end += pair(one + 0x14) + pair(one + 8) / (ways < 8 ? 1UL << ways : 3UL << (ways - 8));
    }
    return one;
}

/* have a decoder of the device show its dynamic capacity at the window's start */
static void show(void)
{
    volatile u8 *hdm = decoders(), *one;
    u64 end, tries;
    one = decoder(hdm, &end);
    if (one == hdm + 0x10 + 0x20 * count_of(hdm))
        fail("all of the device's decoders are in use");
    if (get(one + 0x10) & COMMITTED)
        return;
    if (end > dynamic_start || window_size < dynamic_size)
        fail("the window is too small for the device's dynamic capacity, or a decoder is over it already");
    put(hdm + 4, get(hdm + 4) | 2);
    put(one + 0x10, HOST_ONLY); /* after a commit that failed */
    set_pair(one, window_start);
    set_pair(one + 8, dynamic_size);
    set_pair(one + 0x14, dynamic_start - end);
    put(one + 0x10, HOST_ONLY | COMMIT);
    for (tries = 0; tries < MAILBOX_TRIES && !(get(one + 0x10) & (COMMITTED | REFUSED)); tries++)
        nap();
    if (!(get(one + 0x10) & COMMITTED)) {
        put(one + 0x10, HOST_ONLY);
        fail("the device does not commit a decoder to this window: the fabric's log says why");
    }
}

/* when the host has nothing any more the decoder is free for others */
static void settle(void)
{
    volatile u8 *one;
    u64 end;
    list_held();
    one = decoder(decoders(), &end);
    if (!held_count && get(one + 0x10) & COMMITTED && pair(one) == window_start)
        put(one + 0x10, HOST_ONLY);
}

/* ---- its memory */

static int is_tag(const u8 *tag, const char *text)
{
    int i;
    for (i = 0; i < 16; i++) {
        while (*text == '-')
            text++;
        if (!text[0] || !text[1] || tag[i] != (nibble(text[0]) << 4 | nibble(text[1])))
            return 0;
        text += 2;
    }
    return !*text;
}

/* where byte `offset` of a tag is, now in this process; `count` bytes from there are of the same extent */
static volatile u8 *memory(const char *tag, u64 offset, u64 count)
{
    u64 sequence, passed = 0, i, from;
    long file, at;
    list_held();
    for (sequence = 0; sequence < 512; sequence++)
        for (i = 0; i < held_count; i++) {
            if (!is_tag(held[i].tag, tag) || held[i].sequence != sequence)
                continue;
            if (offset < passed || offset + count > passed + held[i].length) {
                passed += held[i].length;
                continue;
            }
            show();
            from = window_start + (held[i].start - dynamic_start) + (offset - passed);
            file = sys(SYS_OPEN, (u64) "/dev/mem", O_RDWR_, 0, 0, 0, 0);
            at = file < 0 ? file
                          : sys(SYS_MMAP_, 0, (from & (PAGE - 1)) + count, READ_WRITE, SHARED, file, from & -PAGE);
            if (at < 0 && at > -4096)
                fail("/dev/mem cannot be mapped");
            return (volatile u8 *)at + (from & (PAGE - 1));
        }
    say(2, PROGRAM ": the host has no extent with these bytes of this tag\n");
    leave(1);
    return 0;
}

static void write_text(const char *tag, u64 offset, const char *text)
{
    volatile u8 *at = memory(tag, offset, length(text));
    u64 i;
    for (i = 0; text[i]; i++)
        at[i] = text[i];
}

static void read_text(const char *tag, u64 offset, u64 count)
{
    volatile u8 *at = memory(tag, offset, count);
    char one[2] = {0, 0};
    u64 i;
    for (i = 0; i < count; i++) {
        one[0] = at[i];
        sys(SYS_WRITE, 1, (u64)one, 1, 0, 0, 0);
    }
    say(1, "\n");
}

static void release(const char *tag)
{
    u64 i;
    list_held();
    for (i = 0; i < held_count; i++)
        if (is_tag(held[i].tag, tag) && grouped < MOST)
            group[grouped++] = held[i];
    if (!grouped) {
        say(2, PROGRAM ": the host has no extent with this tag\n");
        leave(1);
    }
    must(respond(RELEASE), "the extents cannot be released");
    tell("gave ");
    settle();
}

/* ---- */

static void name(char *into, u64 room, const char *before, const char *given, const char *after)
{
    u64 at = 0;
    if (length(before) + length(given) + length(after) >= room)
        fail("the device's name is too long");
    for (; *before; before++)
        into[at++] = *before;
    for (; *given; given++)
        into[at++] = *given;
    for (; *after; after++)
        into[at++] = *after;
    into[at] = 0;
}

/* a number in a file of sysfs */
static u64 attribute(const char *where, const char *file)
{
    char text[32];
    long from = open_in(where, file, O_RDONLY_), size;
    size = from < 0 ? from : sys(SYS_READ, from, (u64)text, sizeof text - 1, 0, 0, 0);
    if (size <= 0)
        fail("there is no such window; a root decoder is wanted, such as decoder0.1");
    while (size && text[size - 1] == '\n')
        size--;
    text[size] = 0;
    return number(text);
}

void start(u64 *stack)
{
    static char window[128];
    u64 count = stack[0], tries, i;
    char **word = (char **)(stack + 1);
    if (count < 4)
        fail("usage: DEVICE WINDOW answer [SECONDS] | list | release TAG | write TAG OFFSET TEXT | read TAG OFFSET COUNT");
    name(folder, sizeof folder, "/sys/bus/cxl/devices/", word[1], "/..");
    name(device_file, sizeof device_file, "/dev/cxl/", word[1], "");
    name(window, sizeof window, "/sys/bus/cxl/devices/", word[2], "");
    window_start = attribute(window, "start");
    window_size = attribute(window, "size");
    begin();
    if (same(word[3], "answer") && count <= 5) {
        tries = count > 4 ? number(word[4]) * 100 : 0;
        for (answer_all(); !acted && tries; tries--, answer_all())
            for (i = 0; i < 10; i++)
                nap();
        settle();
        leave(acted || count == 4 ? 0 : 1);
    }
    if (same(word[3], "list") && count == 4) {
        list_held();
        for (i = 0; i < held_count; i++)
            say_extent("", held + i);
        leave(0);
    }
    if (same(word[3], "release") && count == 5)
        release(word[4]);
    else if (same(word[3], "write") && count == 7)
        write_text(word[4], number(word[5]), word[6]);
    else if (same(word[3], "read") && count == 7)
        read_text(word[4], number(word[5]), number(word[6]));
    else
        fail("neither answer, list, release, write nor read, or not its words");
    leave(0);
}
