// docs/api/asyncapi.json by the parser of AsyncAPI's own project. Run by scripts/contracts.
const { fromFile, Parser } = require("@asyncapi/parser");

// Says nothing of the document itself.
const passedOver = new Set(["asyncapi-latest-version"]);

(async () => {
  const parser = new Parser();
  const { document, diagnostics } = await fromFile(parser, process.argv[2]).parse();
  const told = diagnostics.filter((found) => !passedOver.has(found.code));
  for (const found of told) {
    console.error(`${found.code} ${found.path.join("/")}: ${found.message}`);
  }
  if (!document || told.length > 0) process.exit(1);
  const messages = document.messages().all().length;
  console.log(`asyncapi.json: AsyncAPI ${document.version()}, ${messages} messages, nothing to complain of`);
})();
