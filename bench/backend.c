/* The benchmarks' model: answers every request with one short JSON, as fast as one core can. epoll, keep-alive,
 * Content-Length bodies. usage: backend <tcp port> <unix socket path> */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_FD 65536
#define READ_BYTES (256 * 1024)
#define HEAD_BYTES 16384

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n"
                             "{\"predictions\":[0.12345678]}";
struct peer { int head; long body; char buffer[HEAD_BYTES]; };
static struct peer *peers[MAX_FD];
static char data[READ_BYTES];

static int listen_on(int fd, struct sockaddr *address, socklen_t size) {
  if (bind(fd, address, size) || listen(fd, 1024)) { perror("listen"); exit(1); }
  return fd;
}

/* Takes n bytes of a peer's stream; returns how many requests they completed, -1 for nonsense. */
static int feed(struct peer *peer, const char *bytes, long n) {
  int done = 0;
  while (n > 0) {
    if (peer->body > 0) {
      long step = n < peer->body ? n : peer->body;
      peer->body -= step; bytes += step; n -= step;
      if (peer->body == 0) done++;
      continue;
    }
    long room = HEAD_BYTES - 1 - peer->head, step = n < room ? n : room;
    if (step <= 0) return -1;
    int before = peer->head;
    memcpy(peer->buffer + before, bytes, step);
    peer->buffer[before + step] = 0;
    char *end = strstr(peer->buffer, "\r\n\r\n");
    if (!end) { peer->head += step; bytes += step; n -= step; continue; }
    long used = (end + 4 - peer->buffer) - before;
    bytes += used; n -= used;
    *end = 0;
    char *length = strcasestr(peer->buffer, "\r\ncontent-length:");
    peer->body = length ? atol(length + 17) : 0;
    peer->head = 0;
    if (peer->body == 0) done++;
  }
  return done;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  signal(SIGPIPE, SIG_IGN);
  int epoll = epoll_create1(0), one = 1;
  int tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), local = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_un un = {.sun_family = AF_UNIX};
  strncpy(un.sun_path, argv[2], sizeof un.sun_path - 1);
  unlink(argv[2]);
  int listeners[2] = {listen_on(tcp, (struct sockaddr *)&in, sizeof in), listen_on(local, (struct sockaddr *)&un, sizeof un)};
  for (int i = 0; i < 2; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listeners[i]};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listeners[i], &event);
  }
  static struct epoll_event events[256];
  for (;;) {
    int count = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == tcp || fd == local) {
        int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
        if (peer < 0) continue;
        if (peer >= MAX_FD) { close(peer); continue; }
        if (fd == tcp) setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        peers[peer] = calloc(1, sizeof(struct peer));
        struct epoll_event event = {.events = EPOLLIN, .data.fd = peer};
        epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &event);
        continue;
      }
      long n = read(fd, data, READ_BYTES);
      if (n < 0 && errno == EAGAIN) continue;
      int answers = n <= 0 ? -1 : feed(peers[fd], data, n);
      for (int k = 0; k < answers; k++)
        if (write(fd, ANSWER, sizeof ANSWER - 1) < 0) { answers = -1; break; }
      if (answers < 0) { close(fd); free(peers[fd]); peers[fd] = NULL; }
    }
  }
}
