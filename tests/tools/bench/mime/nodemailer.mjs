// Composes one message of a JSON file with nodemailer, again and again; prints messages per second once the code is warm.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../prove/mime/package.json", import.meta.url));
const MailComposer = require("nodemailer/lib/mail-composer");

const build = ({ message }) =>
  new Promise((resolve, reject) => {
    const mail = {
      from: { name: "Acme", address: "no-reply@acme.example" },
      to: message.to.map(({ email, name }) => ({ address: email, name })),
      subject: message.subject,
      text: message.text,
      html: message.html,
      attachments: (message.attachments ?? []).map(({ filename, content }) => ({ filename, content, encoding: "base64" })),
    };
    new MailComposer(mail).compile().build((error, raw) => (error ? reject(error) : resolve(raw)));
  });

const [cases, name, seconds] = [JSON.parse(readFileSync(process.argv[2])), process.argv[3], Number(process.argv[4])];

async function rate(span) {
  const begin = process.hrtime.bigint();
  let count = 0;
  let elapsed = 0;
  while (elapsed < span) {
    await build(cases[name]);
    count += 1;
    elapsed = Number(process.hrtime.bigint() - begin) / 1e9;
  }
  return count / elapsed;
}

await rate(1); // until the compiler has seen it
console.log(JSON.stringify({ rate: await rate(seconds) }));
