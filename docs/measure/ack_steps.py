"""The steps in which a slow reader's bytes are acknowledged: docs/numbers.md, "Steps of acknowledgement".

ack_steps.py serve ADDRESS PORT SECONDS                       sends all it can, prints time, step and sum of the bytes acknowledged (SIOCOUTQ, every 20 ms)
ack_steps.py read ADDRESS PORT BYTES_PER_SECOND SECONDS [FAST_BYTES [RECEIVE_BUFFER_BYTES]]
                                                              reads FAST_BYTES as fast as it can first
"""
import fcntl, socket, struct, sys, time, select, termios
def serve(addr, port, seconds):
    l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind((addr, port)); l.listen()
    l.setsockopt(socket.IPPROTO_TCP, 25, 64 << 10)  # TCP_NOTSENT_LOWAT
    s, _ = l.accept(); s.setsockopt(socket.IPPROTO_TCP, 25, 64 << 10); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); s.setblocking(False)
    start = time.monotonic(); written = acked = 0; piece = b"x" * 65536; steps = []
    while (t := time.monotonic() - start) < seconds:
        try:
            while True: written += s.send(piece)
        except BlockingIOError: pass
        except OSError as e: print("end", e); break
        q = struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, b"\0" * 4))[0]
        now = written - q
        if now != acked: steps.append((t, now - acked, now)); acked = now
        time.sleep(0.02)
    for t, d, a in steps: print(f"{t:8.2f} +{d:8d} = {a}")
    sys.stdout.flush()
def read(addr, port, rate, seconds, fast=0, rcvbuf=0):
    s = socket.socket()
    if rcvbuf: s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    s.connect((addr, port)); start = time.monotonic(); got = 0
    while got < fast: got += len(s.recv(min(65536, fast - got)))
    start = time.monotonic(); got = 0
    print("fast part over", s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), flush=True)
    while (t := time.monotonic() - start) < seconds:
        want = int(rate * t) - got
        if want > 0: got += len(s.recv(want))
        time.sleep(0.1)
a = sys.argv
if a[1] == "serve": serve(a[2], int(a[3]), float(a[4]))
else: read(a[2], int(a[3]), float(a[4]), float(a[5]), int(a[6]) if len(a) > 6 else 0, int(a[7]) if len(a) > 7 else 0)
