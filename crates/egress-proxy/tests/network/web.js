// A web server for tests: files, bytes, sums, a WebSocket, a page that stalls, another that redirects.
const { createHash } = require('crypto');
const fs = require('fs');
const [dir] = process.argv.slice(2);

const block = Buffer.alloc(1 << 20, 'cofferdam ');

function bytes(count, response) {
  while (count > 0) {
    const piece = block.subarray(0, Math.min(count, block.length));
    count -= piece.length;
    if (!response.write(piece)) return response.once('drain', () => bytes(count, response));
  }
  response.end();
}

function answer(request, response) {
  const [, what, argument] = request.url.split('/');
  if (what === 'version') response.end(request.httpVersion);
  else if (what === 'bytes') bytes(Number(argument), response);
  else if (what === 'echo') response.end(argument);
  else if (what === 'stall') response.write('and then');
  else if (what === 'away') response.writeHead(302, { location: `${request.socket.encrypted ? 'https' : 'http'}://denied.test/` }).end();
  else if (what === 'sum') {
    const hash = createHash('sha256');
    request.on('data', (piece) => hash.update(piece)).on('end', () => response.end(hash.digest('hex')));
  } else {
    const file = fs.createReadStream(`${dir}/www${request.url.split('?')[0]}`);
    file.on('error', () => response.writeHead(404).end()).pipe(response);
  }
}

// Says back what comes in frames, as bytes: the client makes frames that it unmasks itself.
function upgrade(request, socket) {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accept = createHash('sha1').update(key).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  socket.pipe(socket);
}

const secrets = { key: fs.readFileSync(`${dir}/key.pem`), cert: fs.readFileSync(`${dir}/cert.pem`), allowHTTP1: true };
require('http').createServer(answer).on('upgrade', upgrade).listen(80, '203.0.113.80', 1024);
require('http2').createSecureServer(secrets, answer).on('upgrade', upgrade).listen(443, '203.0.113.80', 1024);
