/*
 * memory: looks at memory, and at memory devices, from inside a guest. Needs no C library; builds with gcc and tcc.
 *
 *   memory fill  FILE OFFSET LENGTH SEED   store a pattern
 *   memory check FILE OFFSET LENGTH SEED   compare with that pattern; status 1 and the first difference if not equal
 *   memory zeros FILE OFFSET LENGTH        the same, where all has to be zero
 *   memory speed FILE LENGTH ROUNDS        MB/s, as JSON; FILE "-" is ordinary memory of this process
 *   memory commands FILE COUNT             mailbox commands a second, as JSON: COUNT times Identify by the ioctl of
 *                                          FILE, such as /dev/cxl/mem0
 *
 * FILE is anything that can be mapped shared: /dev/dax0.0, a file on a DAX file system, /dev/mem (whose offsets are
 * physical addresses; give those of dynamic capacity as softcxl-extents lists them). Word i (64 bits,
 * little-endian) of a pattern is SEED + i * 9E3779B97F4A7C15h. Numbers are decimal or 0x hexadecimal; offsets and
 * lengths are bytes, multiples of 8. Status 2: wrong usage, or the file cannot be mapped.
 */
#define PROGRAM "memory"
#include "bare.h"

#define STEP 0x9E3779B97F4A7C15UL
#define HUGE_PAGE (2UL << 20)

enum { SYS_MMAP = 9, SYS_CLOCK_GETTIME = 228 };
enum { PROT_READ_WRITE = 3, MAP_SHARED_ = 1, MAP_PRIVATE_ANONYMOUS_POPULATE = 0x8022, MONOTONIC = 1 };

static u64 now(void)
{
    long time[2];
    sys(SYS_CLOCK_GETTIME, MONOTONIC, (u64)time, 0, 0, 0, 0);
    return time[0] * 1000000000UL + time[1];
}

/* `size` bytes from `offset` on; a device's file is mapped in whole huge pages */
static u64 *map(const char *name, u64 offset, u64 size)
{
    long file = -1, at;
    u64 flags = MAP_PRIVATE_ANONYMOUS_POPULATE, low = offset & (HUGE_PAGE - 1);
    size = (low + size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    if (!same(name, "-")) {
        file = sys(SYS_OPEN, (u64)name, O_RDWR_, 0, 0, 0, 0);
        if (file < 0)
            fail("the file cannot be opened");
        flags = MAP_SHARED_;
    }
    at = sys(SYS_MMAP, 0, size, PROT_READ_WRITE, flags, file, offset - low);
    if (at < 0 && at > -4096)
        fail("the file cannot be mapped");
    return (u64 *)(at + low);
}

static void fill(u64 *at, u64 words, u64 value)
{
    u64 i;
    for (i = 0; i < words; i++, value += STEP)
        ((volatile u64 *)at)[i] = value;
}

static u64 first_difference(u64 *at, u64 words, u64 value, u64 step)
{
    u64 i;
    for (i = 0; i < words; i++, value += step)
        if (((volatile u64 *)at)[i] != value)
            return i;
    return words;
}

static void check(u64 *at, u64 offset, u64 words, u64 seed, u64 step)
{
    u64 i = first_difference(at, words, seed, step);
    if (i == words)
        return;
    say(1, "at 0x");
    say_number(1, offset + 8 * i, 16);
    say(1, ": 0x");
    say_number(1, at[i], 16);
    say(1, ", not 0x");
    say_number(1, seed + i * step, 16);
    say(1, "\n");
    leave(1);
}

static u64 sink;

static void clear(u64 *at, u64 words)
{
    __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(0) : "memory");
}

static void load(u64 *at, u64 words)
{
    u64 i, sum = 0;
    volatile u64 *word = at;
    for (i = 0; i < words; i += 8)
        sum += word[i] + word[i + 1] + word[i + 2] + word[i + 3] + word[i + 4] + word[i + 5] + word[i + 6] + word[i + 7];
    sink += sum;
}

static void store(u64 *at, u64 words)
{
    u64 i;
    volatile u64 *word = at;
    for (i = 0; i < words; i += 8) {
        word[i] = i;
        word[i + 1] = i;
        word[i + 2] = i;
        word[i + 3] = i;
        word[i + 4] = i;
        word[i + 5] = i;
        word[i + 6] = i;
        word[i + 7] = i;
    }
}

/* the best of the rounds, so that what else the machine does counts little */
static void measure(const char *name, void (*work)(u64 *, u64), u64 *at, u64 size, u64 rounds)
{
    u64 best = ~0UL, began, took;
    while (rounds--) {
        began = now();
        work(at, size / 8);
        took = now() - began;
        if (took < best)
            best = took;
    }
    say(1, "\"");
    say(1, name);
    say(1, "\": ");
    say_number(1, size * 1000 / (best ? best : 1), 10);
}

static void speed(u64 *at, u64 size, u64 rounds)
{
    size &= ~63UL;
    store(at, size / 8);
    say(1, "{");
    measure("memset", clear, at, size, rounds);
    say(1, ", ");
    measure("read", load, at, size, rounds);
    say(1, ", ");
    measure("write", store, at, size, rounds);
    say(1, "}\n");
}

/* include/uapi/linux/cxl_mem.h: struct cxl_send_command, CXL_MEM_SEND_COMMAND, the kernel's number for Identify */
struct send_command {
    unsigned id, flags, reserved, result;
    int in_size;
    unsigned in_reserved;
    u64 in_payload;
    int out_size;
    unsigned out_reserved;
    u64 out_payload;
};
enum { SEND_COMMAND = 0xC030CE02U, IDENTIFY = 1, IDENTIFY_SIZE = 0x45 };

static void commands(const char *name, u64 count)
{
    static char answer[256];
    struct send_command command;
    u64 i, began;
    long file = sys(SYS_OPEN, (u64)name, O_RDWR_, 0, 0, 0, 0);
    if (file < 0)
        fail("the file cannot be opened");
    began = now();
    for (i = 0; i < count; i++) {
        memset(&command, 0, sizeof command);
        command.id = IDENTIFY;
        command.out_size = IDENTIFY_SIZE;
        command.out_payload = (u64)answer;
        if (sys(SYS_IOCTL, file, SEND_COMMAND, (u64)&command, 0, 0, 0) || command.result)
            fail("the command failed");
    }
    say(1, "{\"commands\": ");
    say_number(1, count, 10);
    say(1, ", \"per_second\": ");
    say_number(1, count * 1000000000UL / (now() - began), 10);
    say(1, "}\n");
}

void start(u64 *stack)
{
    u64 count = stack[0], offset, size, seed;
    char **word = (char **)(stack + 1);
    if (count == 5 && same(word[1], "speed")) {
        size = number(word[3]);
        speed(map(word[2], 0, size), size, number(word[4]));
        leave(0);
    }
    if (count == 4 && same(word[1], "commands")) {
        commands(word[2], number(word[3]));
        leave(0);
    }
    if (count != (same(word[1], "zeros") ? 5 : 6))
        fail("usage: fill|check FILE OFFSET LENGTH SEED, zeros FILE OFFSET LENGTH, speed FILE LENGTH ROUNDS, or"
             " commands FILE COUNT");
    offset = number(word[3]);
    size = number(word[4]);
    seed = count == 6 ? number(word[5]) : 0;
    if (offset % 8 || size % 8)
        fail("offset and length are multiples of 8");
    if (same(word[1], "fill"))
        fill(map(word[2], offset, size), size / 8, seed);
    else if (same(word[1], "check"))
        check(map(word[2], offset, size), offset, size / 8, seed, STEP);
    else if (same(word[1], "zeros"))
        check(map(word[2], offset, size), offset, size / 8, 0, 0);
    else
        fail("neither fill, check, zeros nor speed");
    leave(0);
}
