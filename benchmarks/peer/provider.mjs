// A promptfoo provider with the least code: submits, polls every second and downloads.
import { writeFile } from 'node:fs/promises';

const { URL: url, TOKEN: token, FILES: files } = process.env;
const headers = { access_token: token, 'Content-Type': 'application/json' };
const asked = { creation_type: 3, model_code: 'kling-v2-1', aspect_ratio: '1:1', clarity: 1024 };

async function until(address, options, isIt) {
  for (;;) {
    const answer = await (await fetch(address, { headers, ...options })).json();
    if (!answer.code && isIt(answer.data)) return answer.data;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

export default class Chanjing {
  id() {
    return 'chanjing';
  }

  async callApi(prompt, context) {
    const body = JSON.stringify({ ...asked, ref_prompt: prompt });
    const id = await until(`${url}/submit`, { method: 'POST', body }, Boolean);
    const task = await until(`${url}?unique_id=${id}`, {}, (data) => data.progress_desc === 'Success');
    const file = `${context.vars.row}.png`;
    await writeFile(`${files}/${file}`, Buffer.from(await (await fetch(task.output_url[0])).arrayBuffer()));
    return { output: file };
  }
}
