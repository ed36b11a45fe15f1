/*
 * mctp: has the kernel speak MCTP over a serial line, and asks endpoints through the kernel's sockets. Needs no C
 * library; builds with gcc and tcc.
 *
 *   mctp attach TTY OWN FIRST [LAST]
 *   mctp ask EID OPCODE [PAYLOAD]
 *   mctp send EID TYPE MESSAGE
 *
 * attach gives TTY, such as /dev/ttyS1, to the kernel's MCTP (DSP0253), with the endpoint ID OWN, and routes to the
 * endpoints FIRST to LAST over it; prints the network device's name, and leaves a process that holds the line. ask gives
 * a CXL endpoint a command: OPCODE a number, PAYLOAD hexadecimal bytes; prints the return code, a space, and the answer
 * in hexadecimal. The FM API's commands go as messages of type 7, others as type 8. send sends any message, of
 * hexadecimal bytes without the type, and prints the answer.
 * Status 1: the kernel refused, or nobody answered within 10 s: a minus and the error number are printed. Status 2:
 * wrong usage. Needs CONFIG_MCTP_SERIAL.
 */
#define PROGRAM "mctp"
#include "bare.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum {
    CLOSE = 3, POLL = 7, PAUSE = 34, SOCKET = 41, SENDTO = 44, RECVFROM = 45, FORK = 57, SETSID = 112,
    NOCTTY = 0x100, DATAGRAM = 2, RAW_SOCKET = 3, NETLINK = 16, MCTP = 45, TIMED_OUT = 110, WAIT = 10000,
    SET_TERMIOS = 0x5402, SET_DISCIPLINE = 0x5423, N_MCTP = 28, /* asm-generic/ioctls.h, linux/tty.h */
    GET_INDEX = 0x8933, GET_FLAGS = 0x8913, SET_FLAGS = 0x8914, UP = 1, /* linux/sockios.h, linux/if.h */
    NEW_ADDRESS = 20, NEW_ROUTE = 24, REQUEST_AND_ACK = 5, CREATE = 0x400, UNICAST = 1,
    ADDRESS_LOCAL = 2, ROUTE_TO = 1, ROUTE_BY = 4, /* linux/netlink.h, rtnetlink.h, if_addr.h */
    FM_API = 7, COMPONENT = 8, HEADER = 12, LARGEST = 1 << 16, DEVICES = 16
};

/* include/uapi/linux/mctp.h: struct sockaddr_mctp; the tag's owner bit makes a request of a message */
struct address {
    u16 family, pad;
    u32 network;
    u8 eid, type, tag, last;
};
enum { TAG_OWNER = 8 };

static unsigned char message[LARGEST], payload[LARGEST];
static char text[2 * LARGEST + 1];

static void refused(long error)
{
    say(1, "-");
    say_number(1, -error, 10);
    say(1, "\n");
    leave(1);
}

static long must(long result)
{
    if (result < 0)
        refused(result);
    return result;
}

struct request {
    char name[16];
    union {
        int index;
        short flags;
        char room[24];
    } u;
};

static void name_device(struct request *request, int number)
{
    const char *stem = "mctpserial";
    int at = 0;
    memset(request, 0, sizeof *request);
    for (; stem[at]; at++)
        request->name[at] = stem[at];
    if (number > 9)
        request->name[at++] = '1';
    request->name[at] = '0' + number % 10;
}

/* the index of the device with that number, 0 if there is none */
static int device(long file, int number)
{
    struct request request;
    name_device(&request, number);
    return sys(SYS_IOCTL, file, GET_INDEX, (u64)&request, 0, 0, 0) < 0 ? 0 : request.u.index;
}

static void attribute(u8 **at, int type, const void *value, int size)
{
    int i;
    *(u16 *)*at = 4 + size;
    *(u16 *)(*at + 2) = type;
    for (i = 0; i < size; i++)
        (*at)[4 + i] = ((const u8 *)value)[i];
    *at += (4 + size + 3) & ~3;
}

/* send what is in `message` up to `end`, and take the kernel's word for it */
static void netlink(long file, u8 *end, int type)
{
    *(u32 *)message = end - message;
    *(u16 *)(message + 4) = type;
    *(u16 *)(message + 6) = REQUEST_AND_ACK | CREATE;
    must(sys(SENDTO, file, (u64)message, end - message, 0, 0, 0));
    must(sys(RECVFROM, file, (u64)payload, LARGEST, 0, 0, 0));
    must(*(int *)(payload + 16));
}

static void attach(char **word, u64 count)
{
    /* struct termios of the kernel: raw, 115200 baud, 8 bits, no modem lines */
    struct {
        u32 in, out, control, local;
        u8 line, characters[19];
    } raw;
    struct request request;
    long tty, file;
    int discipline = N_MCTP, n, index, before[DEVICES];
    u64 first = number(word[4]), last = count > 5 ? number(word[5]) : first, own = number(word[3]);
    u8 eid = own, *at;
    if (own < 8 || own > 254 || first < 8 || last < first || last > 254 || (own >= first && own <= last))
        fail("endpoint IDs are 8 to 254, LAST is not before FIRST, and OWN is none of theirs");
    tty = sys(SYS_OPEN, (u64)word[2], O_RDWR_ | NOCTTY, 0, 0, 0, 0);
    if (tty < 0)
        fail("the line cannot be opened");
    file = must(sys(SOCKET, NETLINK, RAW_SOCKET, 0, 0, 0, 0));
    for (n = 0; n < DEVICES; n++)
        before[n] = device(file, n);
    memset(&raw, 0, sizeof raw);
    raw.control = 0x18B2;
    must(sys(SYS_IOCTL, tty, SET_TERMIOS, (u64)&raw, 0, 0, 0));
    must(sys(SYS_IOCTL, tty, SET_DISCIPLINE, (u64)&discipline, 0, 0, 0));
    for (n = 0; n < DEVICES; n++)
        if (!before[n] && (index = device(file, n)))
            break;
    if (n == DEVICES)
        fail("there are too many lines already");
    name_device(&request, n);
    must(sys(SYS_IOCTL, file, GET_FLAGS, (u64)&request, 0, 0, 0));
    request.u.flags |= UP;
    must(sys(SYS_IOCTL, file, SET_FLAGS, (u64)&request, 0, 0, 0));
    memset(message, 0, 64);
    message[16] = MCTP; /* struct ifaddrmsg */
    *(int *)(message + 20) = index;
    at = message + 24;
    attribute(&at, ADDRESS_LOCAL, &eid, 1);
    netlink(file, at, NEW_ADDRESS);
    memset(message, 0, 64);
    message[16] = MCTP; /* struct rtmsg */
    message[17] = last - first;
    message[23] = UNICAST;
    at = message + 28;
    eid = first;
    attribute(&at, ROUTE_TO, &eid, 1);
    attribute(&at, ROUTE_BY, &index, 4);
    netlink(file, at, NEW_ROUTE);
    say(1, request.name);
    say(1, "\n");
    if (must(sys(FORK, 0, 0, 0, 0, 0, 0)))
        leave(0);
    sys(SETSID, 0, 0, 0, 0, 0, 0);
    for (n = 0; n < 3; n++)
        sys(CLOSE, n, 0, 0, 0, 0, 0);
    for (;;)
        sys(PAUSE, 0, 0, 0, 0, 0, 0);
}

/* send the first `length` bytes of `message`; the answer goes there too; returns its length */
static u64 exchange(u64 eid, int type, u64 length)
{
    struct address to;
    struct {
        int file;
        short wanted, found;
    } poll;
    long file = must(sys(SOCKET, MCTP, DATAGRAM, 0, 0, 0, 0));
    memset(&to, 0, sizeof to);
    to.family = MCTP;
    to.eid = eid;
    to.type = type;
    to.tag = TAG_OWNER;
    must(sys(SENDTO, file, (u64)message, length, 0, (u64)&to, sizeof to));
    poll.file = file;
    poll.wanted = 1;
    poll.found = 0;
    if (!must(sys(POLL, (u64)&poll, 1, WAIT, 0, 0, 0)))
        refused(-TIMED_OUT);
    return must(sys(RECVFROM, file, (u64)message, LARGEST, 0, 0, 0));
}

static void ask(char **word, u64 count)
{
    u64 eid = number(word[2]), opcode = number(word[3]), length, i;
    length = count > 4 ? bytes(word[4], payload, LARGEST - HEADER) : 0;
    memset(message, 0, HEADER);
    message[3] = opcode;
    message[4] = opcode >> 8;
    message[5] = length;
    message[6] = length >> 8;
    for (i = 0; i < length; i++)
        message[HEADER + i] = payload[i];
    length = exchange(eid, opcode >= 0x5100 && opcode < 0x6000 ? FM_API : COMPONENT, HEADER + length);
    if (length < HEADER || message[0] != 1 || (message[3] | message[4] << 8) != opcode)
        fail("the answer is no response to the command");
    say_number(1, message[8] | message[9] << 8, 10);
    say(1, " ");
    say_bytes(1, message + HEADER, length - HEADER, text);
    say(1, "\n");
    leave(0);
}

static void send(char **word)
{
    u64 length = bytes(word[4], message, LARGEST);
    length = exchange(number(word[2]), number(word[3]), length);
    say_bytes(1, message, length, text);
    say(1, "\n");
    leave(0);
}

void start(u64 *stack)
{
    u64 count = stack[0];
    char **word = (char **)(stack + 1);
    if (count >= 5 && count <= 6 && same(word[1], "attach"))
        attach(word, count);
    if (count >= 4 && count <= 5 && same(word[1], "ask"))
        ask(word, count);
    if (count == 5 && same(word[1], "send"))
        send(word);
    fail("usage: attach TTY OWN FIRST [LAST] | ask EID OPCODE [PAYLOAD] | send EID TYPE MESSAGE");
}
