//! Requests that must be understood, alone and one behind the other.

/// Valid input: one or more whole requests each.
pub(crate) const SAMPLES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:21001\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /a?b=c&d HTTP/1.1\r\nhost:a\r\nAccept: \t*/* \t\r\nEmpty:\r\nBlank: \t \r\n\r\n",
    b"GET /old HTTP/1.0\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /second HTTP/1.0\r\nHost: a\r\n\r\n",
    b"GET http://example.org:80/p?q HTTP/1.1\r\nHost: other\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /later HTTP/1.2\r\nHost: a\r\nX: y\r\n\r\nPOST / HTTP/1.9\r\nHost: a\r\nContent-Length: 2\r\n\r\nokGET / HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: , 100-continue,100-CONTINUE\r\nContent-Length: 2\r\n\r\nok",
    b"PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: caf\xc3\xa9 \xff\x80\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, close\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\nhello\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nok",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\t\r\n\r\n\
      5;a=\"b\\\"c\" ; d\r\nhello\r\n0001\r\n!\r\n0\r\nX: y\r\nZ:\r\n\r\nGET /n HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PUT /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n\
      A\r\n\r\n0\r\n\r\n\r\n\0\r\n0\r\n\r\nDELETE /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
];
