/*
 * bare: what a small program needs that has no C library. It begins in start(), with the stack as the kernel leaves it:
 * the count of words, then the words. PROGRAM, a string, is what complaints begin with.
 */
typedef unsigned long u64;

enum { SYS_WRITE = 1, SYS_OPEN = 2, SYS_IOCTL = 16, SYS_EXIT = 60, O_RDWR_ = 2 };

long sys(long number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f);
__asm__(".globl sys\n"
        "sys:\n"
        "mov %rdi,%rax\n"
        "mov %rsi,%rdi\n"
        "mov %rdx,%rsi\n"
        "mov %rcx,%rdx\n"
        "mov %r8,%r10\n"
        "mov %r9,%r8\n"
        "mov 8(%rsp),%r9\n"
        "syscall\n"
        "ret\n"
        ".globl _start\n"
        "_start:\n"
        "mov %rsp,%rdi\n"
        "call start\n");

/* what a compiler may call of its own accord */
void *memset(void *at, int value, u64 count)
{
    void *first = at;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(value) : "memory");
    return first;
}

void *memcpy(void *to, const void *from, u64 count)
{
    void *first = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return first;
}

void *memmove(void *to, const void *from, u64 count)
{
    unsigned char *a = to;
    const unsigned char *b = from;
    if (a <= b || a >= b + count)
        return memcpy(to, from, count);
    while (count--)
        ((volatile unsigned char *)a)[count] = b[count];
    return to;
}

static u64 length(const char *text)
{
    u64 n = 0;
    while (text[n])
        n++;
    return n;
}

static void say(int file, const char *text)
{
    sys(SYS_WRITE, file, (u64)text, length(text), 0, 0, 0);
}

static void say_number(int file, u64 value, u64 base)
{
    char digits[24];
    int at = 23;
    digits[at] = 0;
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    say(file, digits + at);
}

static void leave(int status)
{
    sys(SYS_EXIT, status, 0, 0, 0, 0, 0);
}

static void fail(const char *why)
{
    say(2, PROGRAM ": ");
    say(2, why);
    say(2, "\n");
    leave(2);
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static u64 number(const char *text)
{
    u64 value = 0, base = 10;
    if (text[0] == '0' && text[1] == 'x')
        base = 16, text += 2;
    if (!*text)
        fail("a number is missing");
    for (; *text; text++) {
        u64 digit = *text <= '9' ? *text - '0' : (*text | 32) - 'a' + 10;
        if (digit >= base)
            fail("not a number");
        value = value * base + digit;
    }
    return value;
}

static unsigned nibble(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 32;
    if (digit < 'a' || digit > 'f')
        fail("the payload is not hexadecimal");
    return digit - 'a' + 10;
}

/* the bytes that hexadecimal digits stand for; returns how many */
static u64 bytes(const char *hex, unsigned char *into, u64 room)
{
    u64 count = length(hex) / 2, i;
    if (length(hex) % 2 || count > room)
        fail("the payload is not of whole bytes, or too long");
    for (i = 0; i < count; i++)
        into[i] = nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]);
    return count;
}

/* text has room for two digits a byte, and the end */
static void say_bytes(int file, const unsigned char *from, u64 count, char *text)
{
    u64 i;
    for (i = 0; i < count; i++) {
        text[2 * i] = "0123456789abcdef"[from[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[from[i] & 15];
    }
    text[2 * count] = 0;
    say(file, text);
}
